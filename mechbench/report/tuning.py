"""Which learning rate is best, and what it cost to find: by cells that are not reported. No torch.

A rate is better if it solves more of its cells, then if it takes fewer tokens to do so, then if
its validation accuracy is higher. The cells have seeds of their own (`Config.tunes`), and every
operator of a suite has as many.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechbench.record.outcome import outcome_of
from mechbench.record.results import NOT_RUN, RETRIED, is_decided
from mechbench.record.trend import standard_error
from mechbench.report.rows import Row, identity

_Z = 1.96  # standard errors of the difference of two accuracies that are told apart
_FREE = ("lr", "budget_tokens")  # of the cells among which a rate is chosen


@dataclass(frozen=True)
class Reading:
    """One cell of a rate as it stood at a budget.

    Attributes:
        tokens: to solve it if it is solved, else the budget.
        solved: by then.
        accuracy: last validated by then, 0 of what failed or diverged; None if never.
        positions: scored in a validation.
        over: whether it ended by then, so that no budget changes it.
    """

    tokens: float
    solved: bool
    accuracy: float | None
    positions: int = 512
    over: bool = False


Rates = Mapping[float, Sequence[Reading]]


def solved(readings: Sequence[Reading]) -> int:
    """Return how many cells are solved."""
    return sum(reading.solved for reading in readings)


def mean_tokens(readings: Sequence[Reading]) -> float:
    """Return the mean tokens to solve; an unsolved cell has its budget, which is a lower bound."""
    return statistics.fmean(reading.tokens for reading in readings)


def merit(lr: float, readings: Sequence[Reading]) -> tuple[float, ...]:
    """Return what rates are sorted by at one budget, the best first; of equals the lower rate."""
    accuracy = statistics.fmean(reading.accuracy or 0.0 for reading in readings)
    lost = sum(reading.over and not reading.solved for reading in readings)
    return -solved(readings), mean_tokens(readings), -accuracy, lost, lr


def best(rates: Rates) -> float:
    """Return the best of the rates, read at one budget.

    Raises:
        ValueError: there is none.
    """
    if not rates:
        raise ValueError("no rate: expected at least one")
    return min(rates, key=lambda lr: merit(lr, rates[lr]))


def tied(first: Sequence[Reading], second: Sequence[Reading]) -> bool:
    """Return whether two rates differ by no more than validation accuracies do by chance.

    They do not where one solves more, or solves as many with fewer tokens. What was not validated
    yet may be anything.
    """
    if (solved(first), mean_tokens(first)) != (solved(second), mean_tokens(second)):
        return False
    means, errors = [], []
    for readings in (first, second):
        known = [reading.accuracy for reading in readings if reading.accuracy is not None]
        if len(known) < len(readings):
            return True
        means.append(statistics.fmean(known))
        positions = sum(reading.positions for reading in readings)
        errors.append(standard_error(means[-1], positions))
    return abs(means[0] - means[1]) <= _Z * math.hypot(*errors)


def reading(data: Mapping[str, Any], budget_tokens: int) -> Reading:
    """Return a stored result as a reading at its end, which is at or before the budget."""
    told = outcome_of(data)
    positions = (told.positions if told else None) or int(data["config"]["n_validation"])
    over = is_decided(data) or data["status"] in RETRIED
    if data["status"] != "ok":
        return Reading(budget_tokens, False, 0.0, positions, over)
    if data.get("solved"):
        tokens = told.tokens if told else data["train_tokens"]
        return Reading(tokens, True, data.get("validation_accuracy"), positions, over)
    return Reading(budget_tokens, False, data.get("validation_accuracy"), positions, over)


def tuned_lr(results: Iterable[Mapping[str, Any]], budget_tokens: int = 0) -> float | None:
    """Return the best rate of those whose cells all came to the largest budget; None without.

    Successive halving drops rates on the way: their results are of smaller budgets.

    Args:
        results: stored ones of the cells that choose a rate, of one point of a suite.
        budget_tokens: that the best must have come to; 0: the largest of the results.
    """
    ran = [data for data in results if data["status"] != NOT_RUN]
    most = budget_tokens or max((data["config"]["budget_tokens"] for data in ran), default=0)
    rates: dict[float, list[Reading]] = defaultdict(list)
    seeds: dict[float, set[int]] = defaultdict(set)
    short = set()
    for data in sorted(ran, key=lambda data: data["config"]["seed"]):
        lr, found = data["config"]["lr"], reading(data, most)
        rates[lr].append(found)
        seeds[lr].add(data["config"]["seed"])
        if not found.over and data["config"]["budget_tokens"] < most:
            short.add(lr)
    every = set().union(*seeds.values())
    whole = {lr: r for lr, r in rates.items() if lr not in short and seeds[lr] == every}
    return best(whole) if whole else None


@dataclass(frozen=True)
class Tuning:
    """What it took to choose the rate of a label at one trained length.

    Attributes:
        rates: that were tried.
        trials: cells trained for it, each a rate and a seed, whatever became of them.
        tokens: that they were trained on in all.
    """

    rates: tuple[float, ...] = ()
    trials: int = 0
    tokens: int = 0

    def at_edge(self, lr: float) -> bool:
        """Return whether a rate is the lowest or the highest tried: the best may lie beyond."""
        return len(self.rates) > 1 and lr in (self.rates[0], self.rates[-1])


def tuning_key(row: Row) -> str:
    """Return what the cells share among which a rate is chosen."""
    return identity(row.config, without=_FREE)


def tunings(rows: Iterable[Row]) -> dict[str, Tuning]:
    """Return what it took to choose rates, by `tuning_key`, of the rows of cells that did."""
    groups: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: row.config.budget_tokens):  # the furthest counts
        if row.config.tunes and row.status != NOT_RUN:
            groups[tuning_key(row)][row.data["cell_id"]] = row.data
    return {
        key: Tuning(
            tuple(sorted({data["config"]["lr"] for data in cells.values()})),
            len(cells),
            sum(data.get("train_tokens") or 0 for data in cells.values()),
        )
        for key, cells in groups.items()
    }
