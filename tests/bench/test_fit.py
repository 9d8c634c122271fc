from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.bench.fit import Crossing, crossings, crossover, exponent


def test_crossing_is_exact_where_both_are_powers_of_the_length() -> None:
    own = {n: 3000.0 * n for n in (1024, 2048, 4096, 8192)}
    other = {n: float(n) ** 2 for n in own}
    (found,) = crossings(own, other)
    assert found.faster_beyond
    assert found.seqlen == pytest.approx(3000)
    assert crossover(own, other) == "3000"
    assert crossover(other, own) == "slower beyond 3000"


@pytest.mark.parametrize(
    ("own", "other", "says"),
    [
        ({1: 1.0, 2: 1.0}, {1: 2.0, 2: 2.0}, "below 1"),
        ({1: 3.0, 2: 3.0}, {1: 2.0, 2: 2.0}, "above 2"),
        ({1: 3.0}, {1: 2.0}, "above 1"),
        ({1: 3.0}, {2: 2.0}, None),
        ({}, {}, None),
        ({1: 2.0, 4: 1.0, 16: 2.0}, {1: 1.0, 4: 2.0, 16: 1.0}, "2; slower beyond 8"),
        ({1: 9.0, 2: 1.0, 4: 9.0}, {1: 1.0, 4: 1.0}, "above 4"),  # only common lengths count
        ({1: 2.0, 2: 1.0, 4: 1.0}, {1: 1.0, 2: 1.0, 4: 2.0}, "2"),  # equal at a length
    ],
)
def test_crossover_says_no_more_than_was_measured(
    own: dict[int, float], other: dict[int, float], says: str | None
) -> None:
    assert crossover(own, other) == says


@given(st.floats(-1, 3), st.floats(1e-3, 1e3), st.integers(2, 9))
def test_exponent_of_a_power_is_its_own(e: float, a: float, n: int) -> None:
    assert exponent({2**k: a * 2.0 ** (k * e) for k in range(n)}) == pytest.approx(e, abs=1e-6)


def test_exponent_is_of_the_upper_half() -> None:
    flat_then_square = {1: 1.0, 2: 1.0, 4: 1.0, 8: 4.0, 16: 16.0}
    assert exponent(flat_then_square) == pytest.approx(2)


def test_no_exponent_of_one_length_or_of_nothing() -> None:
    assert exponent({}) is None
    assert exponent({64: 1.0}) is None
    assert exponent({64: 0.0, 128: 1.0}) is None


def test_crossings_are_values() -> None:
    assert crossings({1: 2.0, 4: 1.0}, {1: 1.0, 4: 2.0}) == [Crossing(pytest.approx(2.0), True)]
