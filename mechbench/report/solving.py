"""How many cells of one experiment are solved, after what, and what became of the others. No torch.

A cell that diverged counts as not solved by its whole budget, as giving up what looks bad early
would flatter the rest (`mechbench.report.survival`). What failed with an error, or for want of
memory, was no attempt, and is counted apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mechbench.record.config import ANYTIME
from mechbench.record.outcome import (
    CENSORED,
    DIVERGED,
    FAILED,
    SOLVED,
    UNCLEAR,
    CellOutcome,
    outcome_of,
)
from mechbench.record.trend import FLAT, RISING
from mechbench.report.intervals import Counts, bootstrap_interval
from mechbench.report.rows import Row, identity
from mechbench.report.survival import Outcome, Share, share_solved

TRENDS = (RISING, FLAT, UNCLEAR)


@dataclass(frozen=True)
class Cell:
    """One cell that was trained.

    Attributes:
        outcome: in tokens.
        flops_per_token: forward and backward; None if not known.
        s_per_token: seconds of training; None if not known.
        trend: of a censored cell, one of TRENDS; None of others.
        counts: right and scored test positions at the trained length, of a censored cell.
    """

    outcome: Outcome
    flops_per_token: float | None = None
    s_per_token: float | None = None
    trend: str | None = None
    counts: Counts | None = None


@dataclass(frozen=True)
class Solving:
    """The cells of a label at one trained length, and how many failed."""

    cells: tuple[Cell, ...] = ()
    failed: int = 0

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """Of every cell, in tokens."""
        return [cell.outcome for cell in self.cells]

    @cached_property
    def in_flops(self) -> list[Outcome]:
        """Of every cell, in FLOPs; none where those of a cell are not known."""
        return _scaled(self.cells, [cell.flops_per_token for cell in self.cells])

    @cached_property
    def in_seconds(self) -> list[Outcome]:
        """Of every cell, in seconds of training; none where those of a cell are not known."""
        return _scaled(self.cells, [cell.s_per_token for cell in self.cells])

    @property
    def solved(self) -> int:
        """Number of cells solved."""
        return sum(cell.outcome.solved for cell in self.cells)

    @cached_property
    def share(self) -> Share | None:
        """The share solved by the most tokens of a cell; None without a cell."""
        return share_solved(self.outcomes) if self.cells else None

    @property
    def trends(self) -> dict[str, int]:
        """Number of censored cells by trend."""
        found = [cell.trend for cell in self.cells if cell.trend]
        return {trend: found.count(trend) for trend in TRENDS if trend in found}

    @property
    def fates(self) -> list[str]:
        """What became of the unsolved cells, such as "2 rising", "1 diverged"."""
        lost = len(self.cells) - self.solved - sum(self.trends.values())
        trends = [f"{n} {trend}" for trend, n in self.trends.items()]
        return [*trends, *([f"{lost} diverged"] if lost else [])]

    @cached_property
    def unsolved(self) -> tuple[float, float, float, int] | None:
        """Mean test accuracy of the censored cells, its interval's ends, and their number."""
        counts = [cell.counts for cell in self.cells if cell.counts]
        if not counts:
            return None
        mean = sum(right / max(1, n) for right, n in counts) / len(counts)
        return mean, *bootstrap_interval(counts), len(counts)


def by_experiment(
    results: Mapping[str, Sequence[Row]], hidden: Sequence[str] = ()
) -> dict[str, Solving]:
    """Return what became of the results of each experiment, those of several budgets together.

    Where no step depends on the budget, a cell that ended with a smaller one than its siblings is
    censored there. What is solved or diverged stands at the largest budget, so to leave the others
    apart would flatter it. Those together stand with the largest budget, and the smaller ones have
    none.

    Args:
        results: rows by experiment and budget, one a result.
        hidden: settings that tell no experiments apart.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key, rows in results.items():
        together = rows and rows[0].config.protocol >= ANYTIME
        name = identity(rows[0].config, (*hidden, "budget_tokens")) if together else key
        groups[name].append(key)
    found = dict.fromkeys(results, Solving())
    for keys in groups.values():
        of_all = sorted(
            (row for key in keys for row in results[key]),
            key=lambda row: (row.config.budget_tokens, row.data.get("train_tokens") or 0),
        )
        # One folder may hold an earlier end of a cell that went on in another.
        furthest = {(row.config.seed, row.config.lr): row for row in of_all}
        budgets = {
            key: max((r.config.budget_tokens for r in results[key]), default=0) for key in keys
        }
        found[max(keys, key=lambda key: budgets[key])] = solving(list(furthest.values()))
    return found


def solving(rows: Sequence[Row]) -> Solving:
    """Return what became of the results of one experiment.

    Cells of one budget that were not solved by it count as trained on the tokens of the shortest:
    they end less than a step apart, which would make censoring of it.

    Args:
        rows: one a result; those not run are left out.
    """
    ordered = sorted(rows, key=lambda row: (row.config.seed, row.data["cell_id"]))
    known = [(row, told) for row in ordered if (told := outcome_of(row.data)) is not None]
    spent: dict[int, int] = {}
    for row, told in known:
        if told.kind == CENSORED and told.tokens:
            budget = _budget(row, told)
            spent[budget] = min(told.tokens, spent.get(budget, told.tokens))
    cells = [_cell(row, told, spent) for row, told in known]
    trained = tuple(cell for cell in cells if cell is not None)
    return Solving(trained, len(cells) - len(trained))


def _cell(row: Row, told: CellOutcome, spent: Mapping[int, int]) -> Cell | None:
    """Return a cell; None of one that failed, or was trained on nothing."""
    tokens, budget = told.tokens, _budget(row, told)
    if told.kind in (CENSORED, DIVERGED):
        tokens = spent.get(budget, budget)
    if told.kind == FAILED or not tokens:
        return None
    over, seconds = row.data.get("train_tokens"), (row.data.get("seconds") or {}).get("train")
    return Cell(
        Outcome(tokens, told.kind == SOLVED),
        row.data.get("flops_per_token") or None,
        seconds / over if over and seconds else None,
        (told.trend or UNCLEAR) if told.kind == CENSORED else None,
        _counts(row) if told.kind == CENSORED else None,
    )


def _budget(row: Row, told: CellOutcome) -> int:
    """Return the budget of a cell; of one given up its own, as the row's may be a sibling's."""
    own = row.data["config"]["budget_tokens"]
    return int(own if told.kind == CENSORED else row.config.budget_tokens)


def _counts(row: Row) -> Counts | None:
    found = [e for e in row.data["evaluations"] if e["seqlen"] == row.config.seqlen]
    if not found or found[0].get("non_finite"):
        return None
    return int(found[0]["correct"]), int(found[0]["n"])


def _scaled(cells: Sequence[Cell], factors: Sequence[float | None]) -> list[Outcome]:
    known = [factor for factor in factors if factor]
    if len(known) < len(cells):
        return []
    return [
        Outcome(cell.outcome.tokens * factor, cell.outcome.solved)
        for cell, factor in zip(cells, known, strict=True)
    ]
