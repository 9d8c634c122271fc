"""Which cells of a suite are done, failed, still to do, or waiting for others. No torch.

Where a suite tries several learning rates, all run with the first seed; the other seeds wait for
the selection and run with the selected rate only.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mechbench.errors import ResultError
from mechbench.plan.suite import Cell
from mechbench.record.results import read_result
from mechbench.report.selection import select_lr, trial

RETRIED = ("error", "out-of-memory")  # statuses that may differ on another machine or another day


@dataclass
class Plan:
    """The cells of a suite that are needed, by their state.

    Attributes:
        done: those with a result, the diverged ones included.
        failed: those that ended in an error or out of memory, with the reason.
        todo: those to run now.
        waiting: those whose learning rate is not selected yet, with the first rate as a stand-in.
    """

    done: list[Cell] = field(default_factory=list)
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    todo: list[Cell] = field(default_factory=list)
    waiting: list[Cell] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many cells are needed in all."""
        return len(self.done) + len(self.failed) + len(self.todo) + len(self.waiting)


def stored_results(cells: Sequence[Cell], out: Path) -> dict[str, dict[str, Any]]:
    """Return {cell id: result} of the cells that have one below `out`, readable and their own."""
    found = {}
    for cell in cells:
        path = out / cell.cell_id / "result.json"
        if path.exists():
            try:
                found[cell.cell_id] = read_result(path, cell.cell_id).data
            except ResultError:
                continue  # the run sets it aside and says so
    return found


def make_plan(
    cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]], *, retry_failed: bool = False
) -> Plan:
    """Return which cells are done, failed, to do or waiting, in the order of the suite."""
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.group].append(cell)
    plan = Plan()
    for group in groups.values():
        needed, waiting = _needed(group, results)
        plan.waiting += waiting
        for cell in needed:
            data = results.get(cell.cell_id)
            if data is None or (retry_failed and data["status"] in RETRIED):
                plan.todo.append(cell)
            elif data["status"] in RETRIED:
                plan.failed.append((cell, str(data.get("reason"))))
            else:
                plan.done.append(cell)
    return plan


def _needed(
    group: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Cell], list[Cell]]:
    """Return the cells of a group that are needed now, and stand-ins for those that wait."""
    rates = {cell.config.lr for cell in group}
    if len(rates) == 1:
        return list(group), []
    first = group[0].config.seed
    tried = [cell for cell in group if cell.config.seed == first]
    if any(cell.cell_id not in results for cell in tried):
        rate = group[0].config.lr
        return tried, [c for c in group if c.config.lr == rate and c.config.seed != first]
    chosen = select_lr(trial(results[cell.cell_id]) for cell in tried)
    others = [c for c in group if c.config.seed != first and c.config.lr == chosen]
    return [*tried, *others], []


class Schedule:
    """The cells still to run, longest first; a finished cell may add those that it decides."""

    def __init__(
        self,
        cells: Sequence[Cell],
        results: Mapping[str, Mapping[str, Any]],
        cost: Callable[[Cell], float],
        *,
        retry_failed: bool = False,
    ) -> None:
        self._groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            self._groups[cell.group].append(cell)
        self._results: dict[str, Mapping[str, Any]] = dict(results)
        self._cost = cost
        self._heap: list[tuple[float, str, Cell]] = []
        self._known: set[str] = set()
        self.plan = make_plan(cells, results, retry_failed=retry_failed)
        for cell in self.plan.todo:
            self._results.pop(cell.cell_id, None)  # of those tried again
            self._add(cell)

    def _add(self, cell: Cell) -> None:
        if cell.cell_id not in self._known:
            self._known.add(cell.cell_id)
            self.again(cell)

    def again(self, cell: Cell) -> None:
        """Put a cell back that was taken and not finished."""
        heapq.heappush(self._heap, (-self._cost(cell), cell.cell_id, cell))

    def take(self) -> Cell | None:
        """Return the longest cell that can run now, None if there is none."""
        return heapq.heappop(self._heap)[2] if self._heap else None

    def finished(self, cell: Cell, data: Mapping[str, Any]) -> None:
        """Note a cell's result, and add the cells that it decides."""
        self._results[cell.cell_id] = data
        for other in _needed(self._groups[cell.group], self._results)[0]:
            if other.cell_id not in self._results:
                self._add(other)

    def __len__(self) -> int:
        """Return how many can run now."""
        return len(self._heap)
