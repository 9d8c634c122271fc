"""The 95 percent interval of an accuracy over seeds. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from mechbench.results import wilson_interval

# 97.5 percent quantiles of Student's t for 1 to 9 degrees of freedom.
_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


def student_quantile(degrees: int) -> float:
    """Return the 97.5 percent quantile of Student's t, to five digits.

    Source: Abramowitz and Stegun 1964, 26.7.5 (from 10 degrees of freedom on).

    Raises:
        ValueError: fewer than 1 degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"degrees is {degrees}: expected at least 1")
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * degrees**4)
    )


def seed_interval(
    accuracies: Sequence[float], correct: Sequence[int], n: Sequence[int]
) -> tuple[float, float]:
    """Return the interval of the mean accuracy over two or more seeds, within [0, 1].

    Student's t over the seeds, but never narrower than the Wilson interval of all their examples
    together: two seeds that happen to agree prove little.

    Raises:
        ValueError: fewer than two seeds.
    """
    mean, count = statistics.fmean(accuracies), len(accuracies)
    half = student_quantile(count - 1) * statistics.stdev(accuracies) / math.sqrt(count)
    low, high = wilson_interval(sum(correct), sum(n))
    return max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half))
