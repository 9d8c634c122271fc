"""How many cells are solved after how many tokens, some given up unsolved: survival. No torch.

A cell is solved at T tokens, or censored at N: trained on N tokens and not solved. All that follows
takes censoring to tell nothing about when a cell would have been solved. A budget that all share
does so; stopping a cell early because it looks hopeless, or because it diverged, does not, and such
a cell is to be entered as not solved by the whole budget. "Tokens" may as well be FLOPs or seconds.

Source: Kaplan and Meier 1958, "Nonparametric estimation from incomplete observations".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mechbench.record.results import wilson_interval


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes:
        tokens: to solve it if it is solved, else those it was trained on.
        solved: whether it is.

    Raises:
        ValueError: `tokens` is not a positive finite number.
    """

    tokens: float
    solved: bool

    def __post_init__(self) -> None:
        if not 0 < self.tokens < math.inf:
            raise ValueError(f"an outcome after {self.tokens} tokens: expected a positive number")


@dataclass(frozen=True)
class Share:
    """The share of cells solved by a number of tokens; the three counts make up all cells.

    Attributes:
        tokens: by which.
        share: Kaplan and Meier's estimate; None beyond what the cells were followed to.
        low: of its 95 percent interval, like `high`.
        high: see `low`.
        solved: cells known to be solved by then.
        at_risk: cells known not to be, as they were trained that far without.
        unknown: cells that were given up before, unsolved.
    """

    tokens: float
    share: float | None
    low: float
    high: float
    solved: int
    at_risk: int
    unknown: int


def followed(outcomes: Sequence[Outcome]) -> float:
    """Return the tokens up to which the share solved is known: infinite once all are solved.

    Raises:
        ValueError: there is no outcome.
    """
    _check(outcomes)
    solved = max((o.tokens for o in outcomes if o.solved), default=0.0)
    censored = max((o.tokens for o in outcomes if not o.solved), default=0.0)
    return math.inf if solved > censored else censored


def half_followed(outcomes: Sequence[Outcome]) -> float:
    """Return the tokens that at least half of the cells came to or were solved by.

    Where fewer than half are solved, that many did not suffice; a single cell that was followed
    further does not speak for the others.

    Raises:
        ValueError: there is no outcome.
    """
    _check(outcomes)
    came_to = sorted((math.inf if o.solved else o.tokens for o in outcomes), reverse=True)
    return came_to[(len(outcomes) - 1) // 2]


def share_solved(outcomes: Sequence[Outcome], tokens: float | None = None) -> Share:
    """Return the share of cells solved by so many tokens, with an interval.

    Where every cell was solved or trained that far, it is a proportion and has its Wilson
    interval. Where cells were given up before, they say only that they were unsolved until then:
    the share is Kaplan and Meier's, 1 - prod (1 - d_j / n_j) over the numbers of tokens at which
    d_j of n_j cells at risk were solved, and the interval is Wilson's with the number of cells
    that would, without censoring, have the variance of Greenwood's formula,
    n = share / ((1 - share) sum d_j / (n_j (n_j - d_j))). That variance is 0 where nothing or all
    is solved; there n counts the cells whose state is known. No n exceeds the number of cells.

    Beyond `followed` there is no estimate, only that the share falls no more: `low` is that of the
    last known share and `high` is 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference";
        Rothman 1978, "Estimation of confidence limits for the cumulative probability of survival
        in life table analysis", for the effective number.

    Args:
        outcomes: of the cells, in any order.
        tokens: by which; by default the most that any cell took.

    Raises:
        ValueError: there is no outcome.
    """
    end = followed(outcomes)
    by = max(o.tokens for o in outcomes) if tokens is None else tokens
    solved = sum(o.solved and o.tokens <= by for o in outcomes)
    unknown = sum(not o.solved and o.tokens < by for o in outcomes)
    counts = solved, len(outcomes) - solved - unknown, unknown
    if by > end:
        return Share(by, None, share_solved(outcomes, end).low, 1.0, *counts)
    share, n = solved / len(outcomes), float(len(outcomes))
    if unknown:
        share, variance = _kaplan_meier(outcomes, by)
        n = share * (1 - share) / variance if 0 < share < 1 else n - unknown
    low, high = wilson_interval(share * n, n)
    return Share(by, share, min(low, share), max(high, share), *counts)


def censored_data(outcomes: Sequence[Outcome]) -> Any:
    """Return the outcomes as scipy takes them."""
    from scipy.stats import CensoredData  # type: ignore[import-untyped]

    return CensoredData(
        uncensored=[float(o.tokens) for o in outcomes if o.solved],
        right=[float(o.tokens) for o in outcomes if not o.solved],
    )


def _kaplan_meier(outcomes: Sequence[Outcome], tokens: float) -> tuple[float, float]:
    """Return the share solved by `tokens`, at least those of the first outcome, and its variance.

    The variance is Greenwood's, and infinite where all are solved.
    """
    import numpy as np
    from scipy.stats import ecdf

    estimate = ecdf(censored_data(outcomes)).sf
    times = estimate.quantiles[estimate.quantiles <= tokens]
    left = float(estimate.probabilities[len(times) - 1])
    at_risk = np.array([sum(o.tokens >= t for o in outcomes) for t in times])
    solved = np.array([sum(o.solved and o.tokens == t for o in outcomes) for t in times])
    if left == 0:
        return 1.0, math.inf
    return 1 - left, left**2 * float((solved / (at_risk * (at_risk - solved))).sum())


def _check(outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        raise ValueError("no outcome: expected at least one")
