from __future__ import annotations

import pytest

from mechbench.record.results import wilson_interval
from mechbench.report.intervals import bootstrap_interval, ties


def seeds(*correct: int, n: int = 1000) -> dict[int, tuple[int, int]]:
    return {seed: (c, n) for seed, c in enumerate(correct)}


def test_one_seed_has_its_wilson_interval() -> None:
    assert bootstrap_interval([(80, 100)]) == wilson_interval(80, 100)


def test_spread_of_the_seeds_decides_where_examples_are_many() -> None:
    counts = [(round(a * 10**6), 10**6) for a in (0.4, 0.45, 0.5, 0.55, 0.6)]
    low, high = bootstrap_interval(counts)
    half = 1.96 * 0.0790569 / 5**0.5  # of the normal distribution
    assert low == pytest.approx(0.5 - half, abs=0.01)
    assert high == pytest.approx(0.5 + half, abs=0.01)


def test_seeds_that_agree_keep_at_least_the_pooled_wilson_interval() -> None:
    low, high = bootstrap_interval([(50, 100), (50, 100)])
    pooled = wilson_interval(100, 200)
    assert low <= pooled[0]
    assert high >= pooled[1]
    assert bootstrap_interval([(100, 100)] * 3) == wilson_interval(300, 300)


def test_interval_stays_within_zero_and_one_and_is_the_same_each_time() -> None:
    counts = [(0, 100), (100, 100)]
    low, high = bootstrap_interval(counts)
    assert 0 <= low < high <= 1
    assert bootstrap_interval(counts) == (low, high)


def test_no_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="no seed"):
        bootstrap_interval([])


@pytest.mark.parametrize(
    ("best", "other", "tie"),
    [
        (seeds(900), seeds(600), False),
        (seeds(900), seeds(895), True),
        (seeds(900), seeds(900), True),
        (seeds(1000, 1000), seeds(1000, 1000), True),
        (seeds(900, 800, 700), seeds(850, 750, 650), False),  # worse with every seed
        (seeds(900, 700, 800), seeds(650, 850, 750), True),  # now better, now worse
        (seeds(900), {7: (890, 1000)}, True),  # no common seed
        (seeds(900), {7: (500, 1000)}, False),
        (seeds(900), {}, False),
    ],
)
def test_paired_test_decides_ties(
    best: dict[int, tuple[int, int]], other: dict[int, tuple[int, int]], tie: bool
) -> None:
    assert ties(best, other) is tie


def test_what_one_test_tells_apart_many_may_not() -> None:
    best, other = seeds(900), seeds(870)
    assert not ties(best, other)
    assert ties(best, other, 11)
    assert not ties(best, seeds(600), 11)


def test_half_of_equally_good_pairs_are_not_told_apart_more_than_rarely() -> None:
    """Two operators of the same accuracy: a false difference in at most a few of 100."""
    import numpy as np

    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        drawn = random.binomial(1000, np.clip(random.normal(0.8, 0.05, (2, 5)), 0, 1))
        a, b = (seeds(*map(int, row)) for row in drawn)
        if sum(c for c, _ in a.values()) < sum(c for c, _ in b.values()):
            a, b = b, a
        wrong += not ties(a, b)
    assert wrong <= 15
