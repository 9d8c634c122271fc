"""Which label of a column is best, if a test tells it from all others. No torch.

Where anything is solved, the one that solves soonest leads, by log-rank tests; the accuracies of
cells that stopped when they were solved say nothing. Elsewhere the highest accuracy leads, by
paired tests over seeds and examples. Both are corrected for the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mechbench.report.intervals import ties
from mechbench.report.log_rank import LEVEL, compared
from mechbench.report.survival import Outcome

if TYPE_CHECKING:
    from mechbench.report.aggregate import Point

_ATTEMPTS = {"ok", "diverged"}  # statuses of what was trained as planned


@dataclass(frozen=True)
class Verdict:
    """What the tests tell of the labels that compete in a column.

    Attributes:
        by_solving: whether log-rank tests were made, rather than paired ones of accuracies.
        order: the labels, the leader first.
        worse: those told from the leader, with their corrected p-value where there is one.
    """

    by_solving: bool = False
    order: tuple[str, ...] = ()
    worse: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def best(self) -> str | None:
        """The leader, if it is told from every other and there is one."""
        return self.order[0] if len(self.level) == 1 < len(self.order) else None

    @property
    def level(self) -> list[str]:
        """The leader, and those not told from it."""
        return [label for label in self.order if label not in self.worse]


def solvers(points: Sequence[Point]) -> dict[str, list[Outcome]]:
    """Return the outcomes of the labels that compete in solving, none where nothing is solved.

    Left out are what looks ahead, and what failed or was not run with any seed; a cell that
    diverged is an unsolved one. Models trained at another length than they are scored at compete
    in accuracy alone, and then all of the column do.

    Args:
        points: of one evaluation length.
    """
    if any(p.trained_seqlen != p.eval_seqlen for p in points):
        return {}
    groups = {
        p.label: p.solving.outcomes
        for p in points
        if set(p.statuses) <= _ATTEMPTS and p.causal is not False and p.solving.cells
    }
    return groups if any(o.solved for group in groups.values() for o in group) else {}


def verdict(points: Sequence[Point]) -> Verdict:
    """Return what the tests tell of the points of one evaluation length."""
    if groups := solvers(points):
        tests = compared(groups)
        worse = {label: c.p for label, c in tests.items() if c.later and c.p <= LEVEL}
        return Verdict(True, tuple(tests), worse)
    order = sorted((p for p in points if p.ranked), key=lambda p: (-(p.accuracy or 0.0), p.label))
    lower = [
        p.label
        for p in order[1:]
        if p.accuracy != order[0].accuracy and not ties(order[0].counts, p.counts, len(order) - 1)
    ]
    return Verdict(False, tuple(p.label for p in order), dict.fromkeys(lower))
