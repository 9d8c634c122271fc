"""Where two curves of time cross, and the exponent of a curve's growth. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Crossing:
    """A length at which a line becomes faster than the other, or slower."""

    seqlen: float
    faster_beyond: bool


def crossings(own: Mapping[int, float], other: Mapping[int, float]) -> list[Crossing]:
    """Return where own / other passes 1, on straight lines in log-log between common lengths.

    A ratio of exactly 1 at a length counts as slower, so that it is one crossing and not two.
    """
    points = [(math.log(n), math.log(own[n] / other[n])) for n in sorted(own.keys() & other.keys())]
    found = []
    for (x, a), (z, b) in itertools.pairwise(points):
        if (a < 0) != (b < 0):
            found.append(Crossing(math.exp(x + (z - x) * a / (a - b)), faster_beyond=b < 0))
    return found


def crossover(own: Mapping[int, float], other: Mapping[int, float]) -> str | None:
    """Say from which length on `own` is faster than `other`.

    Returns:
        "12000"; "below X" or "above Y" where it is faster, or slower, at every common length, the
        least being X and the greatest Y; "slower beyond 12000" where it loses; several in order,
        separated by semicolons; None with no common length.
    """
    common = sorted(own.keys() & other.keys())
    if not common:
        return None
    found = crossings(own, other)
    if not found:
        faster = own[common[0]] < other[common[0]]
        return f"below {common[0]}" if faster else f"above {common[-1]}"
    return "; ".join(f"{'' if c.faster_beyond else 'slower beyond '}{c.seqlen:.0f}" for c in found)


def exponent(figures: Mapping[int, float]) -> float | None:
    """Return e of the least-squares fit figure = a L^e over the upper half of the lengths.

    The upper half, at least two lengths, as short ones are ruled by what does not grow. None with
    fewer than two lengths, or with a figure that is not positive.
    """
    lengths = sorted(figures)
    upper = lengths[-max(2, (len(lengths) + 1) // 2) :]
    if len(upper) < 2 or any(figures[n] <= 0 for n in upper):
        return None
    import numpy as np

    slope, _ = np.polyfit(np.log(upper), np.log([figures[n] for n in upper]), 1)
    return float(slope)
