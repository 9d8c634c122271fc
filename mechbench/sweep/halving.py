"""Successive halving of learning rates over the budget: which go on, and how far. No torch.

All rates are trained to a part of the budget, the better half to twice of it, and so on; those that
remain at the budget are compared there. A rate is carried on, never begun again, so this is never
more than the full grid. Nothing depends on the order in which cells end: a rung is judged once all
that reach it have, by what they were at its budget, however far they have gone since.

Source: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization" (arXiv:1502.07943); here with ties kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from mechbench.report.tuning import Rates, Reading, best, mean_tokens, merit, solved, tied

Read = Callable[[float, int], Sequence[Reading] | None]


@dataclass(frozen=True)
class Halving:
    """How far a search is.

    Attributes:
        wanted: the budget that each rate has to reach for now; it stays there once it is dropped.
        going: rates that are not dropped.
        chosen: the best rate; None while a rate has not reached what is wanted of it.
    """

    wanted: Mapping[float, int]
    going: frozenset[float]
    chosen: float | None = None


def rungs(n_rates: int, budget_tokens: int, least_tokens: int = 0) -> tuple[int, ...]:
    """Return the budgets at which rates are dropped, and the last, at which one is chosen.

    Args:
        n_rates: to begin with; halving leaves two of them, or one, for the last.
        budget_tokens: of a whole run.
        least_tokens: below which a rung would say nothing.
    """
    n = max(1, math.ceil(math.log2(max(1, n_rates))))
    early = (budget_tokens >> i for i in range(n - 1, 0, -1))
    return (*(rung for rung in early if rung >= max(1, least_tokens)), budget_tokens)


def fewest(n_rates: int, n_rungs: int) -> list[int]:
    """Return how many rates reach each rung if none are tied."""
    counts = [n_rates]
    while len(counts) < n_rungs:
        counts.append(math.ceil(counts[-1] / 2))
    return counts


def kept(rates: Rates, near: float = 1.0) -> frozenset[float]:
    """Return the rates that go on from a rung: the better half, and whatever is tied with it.

    Those that no budget could make the best do not go on: where a rate has solved all of its cells
    in fewer tokens than the others have used without solving theirs, only it does.

    Args:
        rates: as they stand.
        near: times the tokens of the fastest, up to which others are of interest still.
    """
    order = sorted(rates, key=lambda lr: merit(lr, rates[lr]))
    going = set(order[: math.ceil(len(order) / 2)])
    grown = True
    while grown:
        more = {lr for lr in order if lr not in going and _tied_with_any(lr, going, rates)}
        going |= more
        grown = bool(more)
    return frozenset(lr for lr in going if not _beaten(lr, rates, near))


def _tied_with_any(lr: float, others: Collection[float], rates: Rates) -> bool:
    return any(tied(rates[lr], rates[other]) for other in others)


def _beaten(lr: float, rates: Rates, near: float) -> bool:
    """Return whether another rate is better whatever more tokens bring."""
    own = rates[lr]
    if solved(own) == len(own):
        return False
    return any(
        solved(other) == len(other) and near * mean_tokens(other) <= mean_tokens(own)
        for rate, other in rates.items()
        if rate != lr
    )


def halve(rates: Sequence[float], budgets: Sequence[int], read: Read, near: float = 1.0) -> Halving:
    """Return how far a search is, from what is known.

    Args:
        rates: all of them.
        budgets: from `rungs`.
        read: gives the cells of a rate as they stood at a budget, None if one did not reach it.
        near: as `kept` takes it.
    """
    wanted: dict[float, int] = {}
    going = frozenset(rates)
    for budget in budgets:
        wanted |= dict.fromkeys(sorted(going), budget)
        known = {lr: read(lr, budget) for lr in sorted(going)}
        found = {lr: readings for lr, readings in known.items() if readings is not None}
        if len(found) < len(known):
            return Halving(wanted, going)
        if budget == budgets[-1]:
            return Halving(wanted, going, best(found))
        going = kept(found, near)
    raise ValueError("no budget: expected at least one")
