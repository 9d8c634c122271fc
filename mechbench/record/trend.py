"""Whether an unsolved cell was still getting better: its slope, rising or flat. No torch.

The slope is the accuracy gained per doubling of tokens, over the last half of them: just one
doubling, so it is about what that half gained. Per million tokens it would fall as 1 / tokens along
a curve that is straight in their logarithm, as most are between plateaus: it would call flat what
was merely trained for long, and could not be compared between budgets. Ten times the tokens are 3.3
doublings.

It is Theil and Sen's, the median of the slopes between pairs, which a few wild validations do not
move. The pairs are of medians of groups of neighbouring validations: neighbours share weights and
examples, and an interval that took each for a new draw would be too narrow.

Source: Sen 1968, "Estimates of the regression coefficient based on Kendall's tau", section 6.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RISING, FLAT = "rising", "flat"
_Z = 1.959964  # of the 95 percent interval


@dataclass(frozen=True)
class Rule:
    """What makes a cell flat; `scripts/overturned.py` measures how often it errs.

    Attributes:
        part: of the tokens, the last of them, that the slope is taken over.
        sigmas: standard errors of the difference of two validations, which a slope may hide in.
        times: the tokens that were spent, by which a flat cell must not be on its way to be solved.
        groups: of validations, at most.
        fewest: groups without which nothing can be said.
        gain: accuracy per doubling, over every predictable position, of what is not flat.
        least_tokens: before which nothing is flat.
    """

    part: float = 0.5
    sigmas: float = 1.96
    times: float = 10.0
    groups: int = 16
    fewest: int = 8
    gain: float = 0.01
    least_tokens: float = 0.0


# On recall (12 operators, 128 to 8,192 tokens; docs/protocol.md) 3 of 16 cells that the scored
# positions alone called flat at 100 M tokens were solved by ten times as many: over every position
# they were gaining 4 to 5 points a doubling. At 20 and 30 M there are plateaus, flat by any
# measure, that are left later.
RULE = Rule(least_tokens=5e7)


@dataclass(frozen=True)
class Slope:
    """Accuracy gained per doubling of tokens, with the ends of its 95 percent interval."""

    slope: float
    low: float
    high: float


def late_slope(
    tokens: Sequence[float], accuracies: Sequence[float], rule: Rule = RULE
) -> Slope | None:
    """Return the slope over the last part of the tokens; None of too few validations.

    Args:
        tokens: of each validation, rising; those of the last one are all that were spent.
        accuracies: validated.
        rule: gives the part, the groups, and how few are too few.
    """
    late = [
        (math.log2(t), accuracy)
        for t, accuracy in zip(tokens, accuracies, strict=True)
        if t >= (1 - rule.part) * tokens[-1] and t > 0
    ]
    n = min(rule.groups, len(late))
    if n < rule.fewest:
        return None
    bounds = [i * len(late) // n for i in range(n + 1)]
    groups = [late[a:b] for a, b in itertools.pairwise(bounds)]
    points = [tuple(map(statistics.median, zip(*group, strict=True))) for group in groups]
    slopes = sorted((v - y) / (u - x) for (x, y), (u, v) in itertools.combinations(points, 2))
    spread = _Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = max(0, round((len(slopes) - spread) / 2) - 1)
    return Slope(statistics.median(slopes), slopes[first], slopes[-1 - first])


def trend(
    slope: Slope | None,
    tokens: float,
    accuracy: float,
    positions: int,
    mark: float,
    rule: Rule = RULE,
    dense: Slope | None = None,
) -> str | None:
    """Return RISING, FLAT, or None where it cannot be told: too little seen, or accuracy falls.

    FLAT: the slope's interval lies within what two validations of one model differ by in chance,
    and its upper end, carried on to `rule.times` the tokens, does not reach the mark; nor does the
    accuracy over every predictable position, which is measured better, rise by what may be
    `rule.gain`. RISING is any other that may gain so much: more of the same is not known to be
    useless. Accuracy that may fall by so much, and rises by less, is neither.

    Args:
        slope: as `late_slope` gives it.
        tokens: spent.
        accuracy: last validated.
        positions: scored in a validation.
        mark: accuracy that solves the task.
        rule: the constants.
        dense: the slope over every predictable position; None where it is not measured.
    """
    if slope is None or tokens < rule.least_tokens:
        return None
    noise = rule.sigmas * math.sqrt(2) * standard_error(accuracy, positions)
    if slope.high > noise or accuracy + slope.high * math.log2(rule.times) >= mark:
        return RISING
    if dense is not None and dense.low > 0 and dense.high >= rule.gain:
        return RISING
    return FLAT if slope.low >= -noise else None


def standard_error(accuracy: float, positions: int) -> float:
    """Return that of an accuracy, not 0 at 0 and 1: two more right and two more wrong.

    Source: Agresti and Coull 1998, "Approximate is better than 'exact' for interval estimation of
        binomial proportions".
    """
    n = positions + 4
    p = (accuracy * positions + 2) / n
    return math.sqrt(p * (1 - p) / n)
