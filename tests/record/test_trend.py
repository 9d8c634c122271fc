from __future__ import annotations

import dataclasses
import math
import random

import pytest
from scipy.stats import theilslopes

from mechbench.record.trend import FLAT, RISING, RULE, Rule, Slope, late_slope, trend

N = 512
STEP = 65_536


def noisy(
    slope: float, n: int, level: float = 0.3, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Return tokens and accuracies of n validations, as N answers each would be right."""
    random_ = random.Random(seed)
    tokens = [STEP * (i + 1.0) for i in range(n)]
    shares = [0.3 + slope * math.log2(t / tokens[-1]) for t in tokens]
    return tokens, [sum(random_.random() < p for _ in range(N)) / N for p in shares]


def test_a_straight_line_has_its_slope_a_doubling_and_no_width() -> None:
    tokens = [STEP * (i + 1.0) for i in range(64)]
    found = late_slope(tokens, [0.2 + 0.05 * math.log2(t / STEP) for t in tokens])
    assert found is not None
    assert (found.slope, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))


def test_only_the_last_part_counts() -> None:
    tokens = [STEP * (i + 1.0) for i in range(64)]
    early = [0.9 if t < tokens[-1] / 2 else 0.4 for t in tokens]
    assert late_slope(tokens, early) == Slope(0.0, 0.0, 0.0)
    whole = late_slope(tokens, early, Rule(part=1.0))
    assert whole is not None
    assert whole.slope < 0


def test_of_few_validations_it_is_theil_and_sens_with_sens_interval() -> None:
    """As scipy has it, whose ends are one pair further out or in by rounding."""
    tokens, accuracies = noisy(0.1, 16)
    found = late_slope(tokens, accuracies, Rule(part=1.0))
    assert found is not None
    logs = [math.log2(t) for t in tokens]
    median, _, low, high = theilslopes(accuracies, logs, 0.95)
    assert found.slope == pytest.approx(median)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_interval_holds_the_slope_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        found = late_slope(*noisy(0.05, 60, seed=seed))
        assert found is not None
        held += found.low <= 0.05 <= found.high
    assert 180 <= held <= 200


def test_a_tenth_of_wild_validations_hardly_moves_it() -> None:
    tokens, accuracies = noisy(0.0, 120)
    wild = [0.0 if i % 10 == 9 else a for i, a in enumerate(accuracies)]
    found, own = late_slope(tokens, wild), late_slope(tokens, accuracies)
    assert found is not None
    assert own is not None
    assert abs(found.slope - own.slope) < 0.02


def test_too_few_validations_tell_nothing() -> None:
    tokens, accuracies = noisy(0.0, 16)
    assert late_slope(tokens[:13], accuracies[:13]) is None
    assert late_slope(tokens, accuracies) is not None
    assert trend(None, 1e9, 0.3, N, 0.995) is None


def verdict(
    slope: Slope, accuracy: float = 0.3, rule: Rule = RULE, positions: int = N
) -> str | None:
    return trend(slope, 1e8, accuracy, positions, 0.995, rule)


def test_flat_is_what_lies_within_the_noise_of_two_validations() -> None:
    noise = 1.96 * math.sqrt(2 * 0.3 * 0.7 / N)
    assert verdict(Slope(0.0, -0.9 * noise, 0.9 * noise)) == FLAT
    assert verdict(Slope(0.0, -0.9 * noise, 1.1 * noise)) == RISING
    assert verdict(Slope(0.0, -0.9 * noise, 0.9 * noise), positions=4 * N) == RISING
    assert verdict(Slope(-0.1, -1.1 * noise, 0.9 * noise)) is None  # it may well fall
    assert verdict(Slope(2 * noise, 1.9 * noise, 2.1 * noise)) == RISING


def test_what_gains_over_every_position_is_not_flat() -> None:
    still = Slope(0.0, -0.01, 0.01)

    def seen(dense: Slope) -> str | None:
        return trend(still, 1e8, 0.3, N, 0.995, dense=dense)

    assert seen(Slope(0.009, 0.001, 0.009)) == FLAT
    assert seen(Slope(0.009, 0.001, 0.011)) == RISING
    assert seen(Slope(0.009, -0.001, 0.02)) == FLAT  # by chance alone, where positions are few
    assert seen(Slope(-0.1, -0.2, -0.05)) == FLAT


def test_what_ten_times_the_tokens_may_solve_is_not_flat() -> None:
    near = Slope(0.002, 0.001, 0.003)
    assert verdict(near, 0.99) == RISING
    assert verdict(near, 0.99, dataclasses.replace(RULE, times=2)) == FLAT
    assert verdict(near, 0.9) == FLAT


def test_nothing_is_flat_before_the_least_tokens() -> None:
    still = Slope(0.0, 0.0, 0.0)
    assert verdict(still, rule=Rule(least_tokens=2e8)) is None
    assert verdict(still, rule=Rule(least_tokens=1e8)) == FLAT


@pytest.mark.parametrize(("slope", "least", "most"), [(0.0, 85, 100), (0.04, 0, 25), (0.08, 0, 1)])
def test_curves_with_the_noise_of_their_validations(slope: float, least: int, most: int) -> None:
    flat = 0
    for seed in range(100):
        tokens, accuracies = noisy(slope, 60, seed=seed)
        slope_found = late_slope(tokens, accuracies)
        found = trend(slope_found, tokens[-1], accuracies[-1], N, 0.995, Rule())
        flat += found == FLAT
    assert least <= flat <= most
