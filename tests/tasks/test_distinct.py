from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.tasks.distinct import draw_distinct, draw_wide


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(0, 12), more=st.integers(0, 60), seed=st.integers(0, 2**40))
def test_rows_hold_different_numbers_in_range(n: int, more: int, seed: int) -> None:
    found = draw_distinct(20, n, n + more, generator(seed))
    assert found.shape == (20, n)
    for row in found.tolist():
        assert len(set(row)) == n
        assert all(0 <= number < n + more for number in row)


@pytest.mark.parametrize(("n", "among"), [(2, 4), (2, 9)])  # both ways of drawing
def test_every_ordered_choice_is_equally_likely(n: int, among: int) -> None:
    rows = 40_000
    found = draw_distinct(rows, n, among, generator())
    counts = torch.bincount(found[:, 0] * among + found[:, 1], minlength=among**2)
    choices = list(itertools.permutations(range(among), 2))
    expected = rows / len(choices)
    for one, other in choices:
        assert abs(counts[one * among + other] - expected) < 6 * expected**0.5
    assert counts.sum() == rows


def test_wide_draws_fill_48_bits_and_do_not_tie() -> None:
    numbers = draw_wide((100_000,), generator())
    assert numbers.min() >= 0
    assert 2**47 < numbers.max() < 2**48
    assert len(numbers.unique()) == 100_000
    assert abs(numbers.double().mean() / 2**48 - 0.5) < 0.01
