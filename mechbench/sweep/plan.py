"""Which cells of a suite are done, failed, still to do, or waiting for others. No torch.

Where a suite tries several learning rates, all run with the first seed; the other seeds wait for
the selection and run with the selected rate only. A cell is done where its result answers for the
budget of the suite: one that stopped short of it is carried on, and what went beyond it is looked
at where it stood there, so that rates are compared at one budget.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mechbench.errors import ResultError
from mechbench.plan.suite import Cell
from mechbench.record.results import RETRIED, answers, is_decided, read_result
from mechbench.report.selection import select_lr, trial
from mechbench.report.watch import read_metrics

_LONGER, _EARLY = 2.0, 4.0  # times as long as another; times a worker's share of what is left


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
                data = read_result(path, cell.cell_id).data
                found[cell.cell_id] = _at(data, cell.config.budget_tokens, path.parent)
            except ResultError:
                continue  # the run sets it aside and says so
    return found


def _at(data: dict[str, Any], budget_tokens: int, folder: Path) -> dict[str, Any]:
    """Return a result as a run of the budget would have it, of what a selection looks at.

    A run is a part of every longer one, so this stands in its rows of metrics.
    """
    if data["config"]["budget_tokens"] <= budget_tokens or data["status"] in RETRIED:
        return data
    if is_decided(data) and data["train_tokens"] <= budget_tokens:
        return data
    try:
        rows = read_metrics(folder / "metrics.csv")
    except ResultError:
        rows = []
    before = [row for row in rows if row.tokens <= budget_tokens]
    validated = [row.validation_accuracy for row in before]
    return {
        **data, "status": "ok", "solved": False,
        "validation_accuracy": validated[-1] if validated else None,
        "train_tokens": before[-1].tokens if before else 0,
    }  # fmt: skip


def _counts(cell: Cell, results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a cell has a result that counts: a failure, or one at the cell's budget."""
    data = results.get(cell.cell_id)
    if data is None:
        return False
    return data["status"] in RETRIED or answers(data, cell.config.budget_tokens)


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
            data = results.get(cell.cell_id, {"status": "not-run"})
            if not _counts(cell, results) or (retry_failed and data["status"] in RETRIED):
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
    if not all(_counts(cell, results) for cell in tried):
        rate = group[0].config.lr
        return tried, [c for c in group if c.config.lr == rate and c.config.seed != first]
    chosen = select_lr(trial(results[cell.cell_id]) for cell in tried)
    others = [c for c in group if c.config.seed != first and c.config.lr == chosen]
    return [*tried, *others], []


class Schedule:
    """The cells still to run, longest first; a finished cell may add those that it decides.

    Cells of one kind differ in seed and learning rate only. A worker that goes from one to the next
    is faster than one that begins with a kind: what it has built, compiled and captured serves
    again. So kinds are spread over the workers, as far as the longest cells allow.

    Args:
        cells: of the suite.
        results: those stored, by cell id.
        cost: seconds that a cell takes at most.
        retry_failed: run again what failed.
        begin_s: seconds that a worker takes to begin with a kind.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        results: Mapping[str, Mapping[str, Any]],
        cost: Callable[[Cell], float],
        *,
        retry_failed: bool = False,
        begin_s: float = 0.0,
    ) -> None:
        self._begin_s = begin_s
        self._groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            self._groups[cell.group].append(cell)
        self._results: dict[str, Mapping[str, Any]] = dict(results)
        self._cost = cost
        self._heaps: dict[str, _Heap] = defaultdict(_Heap)  # by kind
        self._longest: list[tuple[float, str, str]] = []  # of each kind, perhaps outdated
        self._left, self._n = 0.0, 0  # seconds and number of all
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
        cost = self._cost(cell)
        self._heaps[cell.group].push(cost, cell)
        self._left, self._n = self._left + cost, self._n + 1
        self._note(cell.group)

    def take(self, at: str | None = None, others: Sequence[str] = ()) -> Cell | None:
        """Return the cell that a worker is to run now, None if there is none for it.

        Args:
            at: `Cell.group` of the one that it has run last.
            others: the same of the other workers, of those that go on.
        """
        first = self._first(set())
        kind = None if first is None else self._kind(at, others)
        if first is None or kind is None:
            return None
        longest, share = self._heaps[first].longest, self._left / (1 + len(others))
        # A cell so long that the sweep may end with it does not wait.
        if longest > _LONGER * self._heaps[kind].longest and longest > share / _EARLY:
            kind = first
        heap = self._heaps[kind]
        self._left, self._n = self._left - heap.longest, self._n - 1
        cell = heap.pop()
        if not heap:
            del self._heaps[kind]
        self._note(kind)
        return cell

    def _kind(self, at: str | None, others: Sequence[str]) -> str | None:
        """Return the kind to go on or begin with: the worker's own, nobody's, or one to share."""
        if at in self._heaps:
            return at
        if (free := self._first({*others})) is not None:
            return free
        shares = Counter(others)
        shared = max(self._heaps, key=lambda kind: self._heaps[kind].left / shares[kind])
        return shared if self._heaps[shared].left / shares[shared] > self._begin_s else None

    def _first(self, but: set[str]) -> str | None:
        """Return the kind with the longest cell, but for some."""
        kept, found = [], None
        while self._longest and found is None:
            item = self._longest[0]
            heap = self._heaps.get(item[2])
            if heap is None or item != (*heap.first, item[2]):
                heapq.heappop(self._longest)  # outdated
            elif item[2] in but:
                kept.append(heapq.heappop(self._longest))
            else:
                found = item[2]
        for item in kept:
            heapq.heappush(self._longest, item)
        return found

    def _note(self, kind: str) -> None:
        """Enter the longest cell of a kind."""
        if kind in self._heaps:
            heapq.heappush(self._longest, (*self._heaps[kind].first, kind))

    def finished(self, cell: Cell, data: Mapping[str, Any]) -> None:
        """Note a cell's result, and add the cells that it decides."""
        self._results[cell.cell_id] = data
        for other in _needed(self._groups[cell.group], self._results)[0]:
            if not _counts(other, self._results):
                self._add(other)

    def __len__(self) -> int:
        """Return how many can run now."""
        return self._n


class _Heap:
    """Cells of one kind, the longest first."""

    def __init__(self) -> None:
        self._cells: list[tuple[float, str, Cell]] = []
        self.left = 0.0  # seconds of all

    @property
    def first(self) -> tuple[float, str]:
        """Its place among those of other kinds."""
        return self._cells[0][:2]

    @property
    def longest(self) -> float:
        """Seconds of the longest."""
        return -self._cells[0][0]

    def push(self, cost: float, cell: Cell) -> None:
        heapq.heappush(self._cells, (-cost, cell.cell_id, cell))
        self.left += cost

    def pop(self) -> Cell:
        cost, _, cell = heapq.heappop(self._cells)
        self.left += cost
        return cell

    def __len__(self) -> int:
        return len(self._cells)
