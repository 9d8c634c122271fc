from __future__ import annotations

import pytest

from mechbench.report.intervals import seed_interval, student_quantile
from mechbench.results import wilson_interval


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.70620), (2, 4.30265), (9, 2.26216), (10, 2.22814), (30, 2.04227), (120, 1.97993)],
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(degrees) == pytest.approx(quantile, abs=1e-5)


def test_no_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        student_quantile(0)


def test_student_interval_of_three_seeds() -> None:
    low, high = seed_interval([0.4, 0.5, 0.6], [4000, 5000, 6000], [10000] * 3)
    half = 4.302653 * 0.1 / 3**0.5
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))


def test_seeds_that_agree_keep_the_pooled_wilson_interval() -> None:
    assert seed_interval([0.5, 0.5], [50, 50], [100, 100]) == wilson_interval(100, 200)


def test_interval_stays_within_zero_and_one() -> None:
    assert seed_interval([0.0, 1.0], [0, 100], [100, 100]) == (0.0, 1.0)
