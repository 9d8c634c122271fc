"""95 percent intervals of accuracies over seeds and examples, and the paired test. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechbench.record.results import wilson_interval
from mechbench.record.seeds import derive

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
Counts = tuple[int, int]  # right answers, scored positions


def bootstrap_interval(counts: Sequence[Counts]) -> tuple[float, float]:
    """Return the interval of the mean accuracy over seeds, within [0, 1].

    Seeds are drawn with replacement, then each one's examples. Deviations are widened by
    sqrt(S / (S - 1)), as drawing from S seeds understates their variance by that much, and the
    interval is never narrower than the Wilson interval of all examples together: seeds that happen
    to agree prove little, and one seed has that interval alone.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", sections 5.3 and 13.3.

    Raises:
        ValueError: there is no seed.
    """
    if not counts:
        raise ValueError("no seed: expected at least one")
    pooled = wilson_interval(sum(c for c, _ in counts), sum(n for _, n in counts))
    if len(counts) == 1:
        return pooled
    random = _random(counts)
    means = _resampled(counts, _drawn(len(counts), random), random).mean(1)
    low, high = _widened(means, _mean(counts), len(counts))
    return max(0.0, min(low, pooled[0])), min(1.0, max(high, pooled[1]))


def ties(best: Mapping[int, Counts], other: Mapping[int, Counts], comparisons: int = 1) -> bool:
    """Return whether `other` may be as good as `best`: the paired test at 5 percent.

    The bootstrap interval of the difference in accuracy reaches 0. A seed means the same training
    stream and the same test examples for everyone, so seeds are drawn in pairs; the examples of a
    pair are drawn apart, which makes the test cautious.

    Args:
        best: counts by seed of the one with the higher mean.
        other: counts by seed; without a common seed the two are drawn apart.
        comparisons: that are made in all, by whose number the 5 percent are divided.
    """
    seeds = sorted(set(best) & set(other))
    a = [best[s] for s in seeds] or [best[s] for s in sorted(best)]
    b = [other[s] for s in seeds] or [other[s] for s in sorted(other)]
    if not a or not b:
        return False
    random = _random([*a, *b])
    picked = _drawn(len(a), random)
    paired = picked if seeds else _drawn(len(b), random)
    difference = _resampled(a, picked, random).mean(1) - _resampled(b, paired, random).mean(1)
    low, _ = _widened(difference, _mean(a) - _mean(b), min(len(a), len(b)), comparisons)
    return low <= 0.0


def _random(counts: Sequence[Counts]) -> np.random.RandomState:
    """Return a stream that the counts decide; NumPy promises to keep this generator's numbers."""
    import numpy as np

    labels = [number for pair in counts for number in pair]
    return np.random.RandomState(derive(0, "bootstrap", *labels) % 2**32)


def _drawn(n_seeds: int, random: np.random.RandomState) -> np.ndarray[Any, Any]:
    return random.randint(0, n_seeds, (RESAMPLES, n_seeds))


def _resampled(
    counts: Sequence[Counts], picked: np.ndarray[Any, Any], random: np.random.RandomState
) -> np.ndarray[Any, Any]:
    """Return the accuracies of the picked seeds on redrawn examples, as `picked`."""
    import numpy as np

    n = np.array([max(1, n) for _, n in counts])[picked]
    p = np.array([c / max(1, n) for c, n in counts])[picked]
    drawn: np.ndarray[Any, Any] = random.binomial(n, p) / n
    return drawn


def _widened(
    values: np.ndarray[Any, Any], centre: float, n_seeds: int, comparisons: int = 1
) -> tuple[float, float]:
    import numpy as np

    factor = math.sqrt(n_seeds / (n_seeds - 1)) if n_seeds > 1 else 1.0
    tail = 2.5 / comparisons
    low, high = np.percentile(values, [tail, 100 - tail])
    return centre + factor * (float(low) - centre), centre + factor * (float(high) - centre)


def _mean(counts: Sequence[Counts]) -> float:
    return math.fsum(c / max(1, n) for c, n in counts) / len(counts)
