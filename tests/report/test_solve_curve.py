from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.record.results import wilson_interval
from mechbench.report.solve_curve import Median, median_tokens, restricted_mean, solve_curve
from mechbench.report.survival import Outcome, share_solved
from report.outcomes import CELLS, cells


def test_a_curve_steps_where_cells_are_solved_or_given_up() -> None:
    curve = solve_curve(cells([10, 20, 20], [15, 100]))
    assert curve.tokens.tolist() == [0, 10, 15, 20, 100]
    assert curve.share == pytest.approx([0, 1 / 5, 1 / 5, 11 / 15, 11 / 15])  # 1 - 4/5 * 1/3
    assert curve.at_risk.tolist() == [5, 4, 4, 1, 1]
    assert curve.censored.tolist() == [0, 0, 1, 0, 1]
    assert curve.end == 100
    assert (curve.low[1], curve.high[1]) == wilson_interval(1, 5)


def test_what_is_given_up_widens_the_band_of_nothing_solved() -> None:
    curve = solve_curve(cells([], [5, 10, 10]))
    ends = [wilson_interval(0, 3)[1], wilson_interval(0, 2)[1], wilson_interval(0, 2)[1]]
    assert curve.high.tolist() == ends
    assert not curve.low.any()
    assert not curve.share.any()


@given(CELLS, st.floats(0.01, 8.99))
def test_a_curve_says_what_share_solved_says(outcomes: list[Outcome], tokens: float) -> None:
    curve, found = solve_curve(outcomes), share_solved(outcomes, tokens)
    i = int(np.searchsorted(curve.tokens, tokens, side="right")) - 1
    if found.share is not None and tokens not in curve.tokens:
        step = curve.share[i], curve.low[i], curve.high[i]
        assert step == pytest.approx((found.share, found.low, found.high), abs=1e-12)


@given(CELLS)
def test_a_curve_rises_within_its_band(outcomes: list[Outcome]) -> None:
    curve = solve_curve(outcomes)
    assert (np.diff(curve.share) >= -1e-12).all()
    assert (curve.low >= 0).all()
    assert (curve.low <= curve.share + 1e-12).all()
    assert (curve.share <= curve.high + 1e-12).all()
    assert (curve.high <= 1).all()
    assert (curve.share[-1] == 1) == math.isinf(curve.end)


@pytest.mark.parametrize(
    ("outcomes", "median"),
    [
        (cells([1, 2, 3]), Median(2, 0, math.inf)),  # 3 of 3 is from 44 percent
        (cells([1, 2, 3, 4, 5]), Median(3, 1, 5)),  # 1 of 5 is to 62 percent, 4 of 5 from 38
        (cells([1, 2, 3, 4]), Median(2, 1, 4)),  # the first at which a half is reached
        (cells([1, 2], [9, 9]), Median(2, 1, math.inf)),
        (cells([1], [9, 9]), Median(math.inf, 0, math.inf)),
        (cells([], [7, 7, 9, 9, 9, 9]), Median(math.inf, 9, math.inf)),  # 0 of 6 is to 39 percent
        (cells([1, 2, 4, 5], [3]), Median(4, 1, 5)),  # 1 - 4/5 * 3/4 = 2/5, then * 1/2
        (cells([2] * 10), Median(2, 2, 2)),
    ],
)
def test_median_worked_by_hand(outcomes: list[Outcome], median: Median) -> None:
    assert median_tokens(outcomes) == median


def test_a_half_made_of_fractions_is_a_half() -> None:
    """3 of 6 solved, with products such as 5/6 * 4/5 * 3/4 that may miss a half by a rounding."""
    for n in range(2, 40, 2):
        outcomes = cells(range(1, n // 2 + 1), [n] * (n // 2 - 1) + [n + 1])
        assert median_tokens(outcomes).tokens == n // 2


def test_median_of_many_cells_is_held_by_their_order_statistics() -> None:
    """500 give or take 1.96 sqrt(1000) / 2."""
    found = median_tokens(cells(range(1, 1001)))
    assert found.tokens == 500
    assert found.low == pytest.approx(469, abs=1)
    assert found.high == pytest.approx(532, abs=1)


@given(CELLS)
def test_an_interval_holds_its_median_and_scales(outcomes: list[Outcome]) -> None:
    found = median_tokens(outcomes)
    assert found.low <= found.tokens <= found.high
    larger = median_tokens([Outcome(o.tokens * 4096, o.solved) for o in reversed(outcomes)])
    assert larger == Median(found.tokens * 4096, found.low * 4096, found.high * 4096)


def test_restricted_mean_is_the_mean_where_all_are_known() -> None:
    outcomes = cells([10, 20, 60], [100])
    assert restricted_mean(outcomes) == pytest.approx((10 + 20 + 60 + 100) / 4)
    assert restricted_mean(outcomes, 50) == pytest.approx((10 + 20 + 50 + 50) / 4)
    assert restricted_mean(cells([10, 20]), 1000) == pytest.approx(15)
    # 1 of 3 solved at 10, one given up at 20, the last solved at 40
    assert restricted_mean(cells([10, 40], [20])) == pytest.approx(10 + 2 / 3 * 30)


@given(CELLS)
def test_restricted_mean_is_the_area_over_the_curve(outcomes: list[Outcome]) -> None:
    until = max(o.tokens for o in outcomes)
    area = sum(1 - (share_solved(outcomes, t).share or 0) for t in range(int(until)))
    assert restricted_mean(outcomes) == pytest.approx(area)


def test_a_mean_beyond_the_cells_and_an_empty_curve_are_refused() -> None:
    with pytest.raises(ValueError, match="end at 9"):
        restricted_mean(cells([1], [9]), 10)
    with pytest.raises(ValueError, match="no outcome"):
        solve_curve([])
