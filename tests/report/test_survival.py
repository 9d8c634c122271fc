from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.record.results import wilson_interval
from mechbench.report.survival import Outcome, Share, followed, half_followed, share_solved
from report.outcomes import CELLS, cells


def brute_force(outcomes: list[Outcome], tokens: float) -> Fraction:
    """The share solved by product limit, one cell after another, in whole numbers."""
    left = Fraction(1)
    order = sorted(outcomes, key=lambda o: (o.tokens, not o.solved))  # solved before given up
    for i, outcome in enumerate(order):
        if outcome.solved and outcome.tokens <= tokens:
            left *= 1 - Fraction(1, len(order) - i)
    return 1 - left


def test_where_all_cells_are_known_the_share_is_a_proportion() -> None:
    outcomes = cells([10, 20, 20], [100, 100])
    assert share_solved(outcomes) == Share(100, 0.6, *wilson_interval(3, 5), 3, 2, 0)
    assert share_solved(outcomes, 20) == Share(20, 0.6, *wilson_interval(3, 5), 3, 2, 0)
    assert share_solved(outcomes, 15) == Share(15, 0.2, *wilson_interval(1, 5), 1, 4, 0)
    assert share_solved(outcomes, 9).share == 0


def test_cells_given_up_before_count_as_long_as_they_were_trained() -> None:
    """By hand: 1 of 6 solved at 1, one given up at 2, 2 of 4 solved at 3, one given up at 4."""
    outcomes = cells([1, 3, 3], [2, 4, 9])
    found = share_solved(outcomes, 5)
    assert found.share == pytest.approx(1 - 5 / 6 * 2 / 4)
    assert (found.solved, found.at_risk, found.unknown) == (3, 1, 2)
    # Greenwood: 1 / (6 * 5) + 2 / (4 * 2) = 17 / 60; n = (7 / 12) / (5 / 12 * 17 / 60)
    n = 7 / 5 * 60 / 17
    assert (found.low, found.high) == pytest.approx(wilson_interval(7 / 12 * n, n))


def test_a_cell_given_up_as_another_is_solved_was_at_risk() -> None:
    assert share_solved(cells([5], [5, 9]), 6).share == pytest.approx(1 / 3)


def test_nothing_solved_and_all_solved_count_the_cells_that_are_known() -> None:
    none = share_solved(cells([], [5, 10, 10]), 10)
    assert (none.share, none.low, none.high) == (0, *wilson_interval(0, 2))
    everything = share_solved(cells([6, 7], [5]), 8)
    assert (everything.share, everything.low, everything.high) == (1, *wilson_interval(2, 2))


def test_beyond_the_last_cell_there_is_only_a_lower_end() -> None:
    outcomes = cells([10, 20], [50, 80])
    assert followed(outcomes) == 80
    found = share_solved(outcomes, 81)
    assert found.share is None
    assert (found.low, found.high) == (share_solved(outcomes, 80).low, 1.0)
    assert (found.solved, found.at_risk, found.unknown) == (2, 0, 2)


@pytest.mark.parametrize(
    ("outcomes", "end"),
    [
        (cells([3]), math.inf),
        (cells([3], [2]), math.inf),  # the last at risk was solved
        (cells([3], [3]), 3),
        (cells([], [2, 5]), 5),
    ],
)
def test_the_share_is_known_to_the_last_cell_or_for_good(
    outcomes: list[Outcome], end: float
) -> None:
    assert followed(outcomes) == end


@pytest.mark.parametrize(
    ("outcomes", "tokens"),
    [
        (cells([], [2, 5]), 5),
        (cells([], [2, 2, 5]), 2),
        (cells([1], [2, 5]), 5),  # the solved one is of the half
        (cells([1, 2], [5]), math.inf),
    ],
)
def test_one_cell_followed_further_does_not_speak_for_the_half(
    outcomes: list[Outcome], tokens: float
) -> None:
    assert half_followed(outcomes) == tokens


@given(CELLS, st.integers(1, 9))
def test_it_is_the_product_limit_in_its_interval(outcomes: list[Outcome], tokens: int) -> None:
    found = share_solved(outcomes, tokens)
    assert found.solved + found.at_risk + found.unknown == len(outcomes)
    if tokens > followed(outcomes):
        assert found.share is None
        return
    assert found.share == pytest.approx(float(brute_force(outcomes, tokens)), abs=1e-12)
    assert 0 <= found.low <= (found.share or 0) <= found.high <= 1


@given(CELLS, st.integers(1, 8))
def test_lost_cells_never_narrow_the_interval(outcomes: list[Outcome], tokens: int) -> None:
    found = share_solved(outcomes, min(tokens, followed(outcomes)))
    assert found.share is not None
    low, high = wilson_interval(found.share * len(outcomes), len(outcomes))
    assert found.low <= low + 1e-9
    assert found.high >= high - 1e-9


@given(CELLS, st.data())
def test_a_cell_solved_instead_of_given_up_never_lowers_the_share(
    outcomes: list[Outcome], data: st.DataObject
) -> None:
    i = data.draw(st.integers(0, len(outcomes) - 1))
    better = [*outcomes[:i], Outcome(outcomes[i].tokens, True), *outcomes[i + 1 :]]
    for tokens in range(9):
        before, after = share_solved(outcomes, tokens).share, share_solved(better, tokens).share
        if before is not None and after is not None:
            assert after >= before - 1e-12


@given(CELLS, st.randoms(use_true_random=False), st.integers(1, 8))
def test_neither_order_nor_unit_matters(outcomes: list[Outcome], random: object, at: int) -> None:
    mixed = [Outcome(o.tokens * 4096, o.solved) for o in outcomes]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, two = share_solved(outcomes, at), share_solved(mixed, at * 4096)
    assert (one.share, one.low, one.high) == (two.share, two.low, two.high)


@pytest.mark.parametrize("tokens", [0, -1, math.inf, math.nan])
def test_an_impossible_number_of_tokens_is_refused(tokens: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        Outcome(tokens, True)


def test_no_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="no outcome"):
        share_solved([])
