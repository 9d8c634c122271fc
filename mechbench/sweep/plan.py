"""Which cells of a suite are done, failed, still to do, or waiting for others. No torch.

Where a suite tries several learning rates, seeds that are not reported choose one of them
(`mechbench.sweep.choice`); the reported seeds wait for that and run with it only. A cell is done
where its result answers for the budget that is wanted of it: one that stopped short of it is
carried on, and what went beyond it is looked at where it stood there, so that rates are compared at
one budget. Where the suite says so (`carry_on`), reported cells that are not flat at their budget
are wanted at twice that, and again, whatever the operator.
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
from mechbench.record.outcome import CENSORED, outcome_of
from mechbench.record.results import RETRIED, read_result
from mechbench.record.trend import FLAT
from mechbench.sweep.choice import choose
from mechbench.sweep.readings import counts, up_to, with_validations

_LONGER, _EARLY = 2.0, 4.0  # times as long as another; times a worker's share of what is left


@dataclass
class Plan:
    """The cells of a suite that are needed, by their state.

    Attributes:
        done: those with a result, the diverged ones included.
        failed: those that ended in an error or out of memory, with the reason.
        todo: those to run now.
        waiting: those whose learning rate is not chosen yet, with the first rate as a stand-in.
        open: those that choose a rate and may have to go on to the whole budget, as if they had.
    """

    done: list[Cell] = field(default_factory=list)
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    todo: list[Cell] = field(default_factory=list)
    waiting: list[Cell] = field(default_factory=list)
    open: list[Cell] = field(default_factory=list)

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
                tunes = cell.config.tunes
                found[cell.cell_id] = with_validations(data, path.parent) if tunes else data
            except ResultError:
                continue  # the run sets it aside and says so
    return found


def without_failures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the results without those that are to be tried again."""
    return {key: data for key, data in results.items() if data["status"] not in RETRIED}


def make_plan(
    cells: Sequence[Cell],
    results: Mapping[str, Mapping[str, Any]],
    *,
    retry_failed: bool = False,
    by_rows: bool = True,
) -> Plan:
    """Return which cells are done, failed, to do or waiting, in the order of the suite.

    Args:
        cells: of the suite.
        results: by cell id, with their validations as `stored_results` gives them.
        retry_failed: run again what failed.
        by_rows: judge rates by their validations. Where these are not known, as on a board, a
            choice stands as soon as all rates were tried and one came to the whole budget.
    """
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.group].append(cell)
    if retry_failed:
        results = without_failures(results)
    plan = Plan()
    for group in groups.values():
        needed, waiting, still_open = _needed(group, results, by_rows)
        plan.waiting += waiting
        plan.open += still_open
        for cell in needed:
            if not counts(cell, results):
                plan.todo.append(cell)
            elif (data := results[cell.cell_id])["status"] in RETRIED:
                plan.failed.append((cell, str(data.get("reason"))))
            else:
                plan.done.append(cell)
    return plan


def _needed(
    group: Sequence[Cell], results: Mapping[str, Mapping[str, Any]], by_rows: bool = True
) -> tuple[list[Cell], list[Cell], list[Cell]]:
    """Return the cells of a group needed now, stand-ins for those that wait, and `Plan.open`."""
    tuning = [cell for cell in group if cell.config.tunes]
    reported = [cell for cell in group if not cell.config.tunes]
    going_on = carried_on if by_rows else lambda cells, _: list(cells)  # a board holds what was run
    if not tuning:
        return going_on(reported, results), [], []
    choice = choose(tuning, results, by_rows)
    if choice.lr is not None:
        chosen = [cell for cell in reported if cell.config.lr == choice.lr]
        return [*choice.needed, *going_on(chosen, results)], [], []
    rate = reported[0].config.lr if reported else 0.0
    return choice.needed, [c for c in reported if c.config.lr == rate], choice.open


def carried_on(cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """Return cells that differ in their seed at the budgets that are wanted, by what is known.

    Once all have run: if one is neither solved nor flat, all that are not solved go on, so that
    they stand at one budget.
    """
    spent: dict[str, int] = {}
    rising = False
    for cell in cells:
        data = results.get(cell.cell_id)
        if data is None or not counts(cell, results):
            return list(cells)
        told = outcome_of(data)
        if told is not None and told.kind == CENSORED:
            spent[cell.cell_id] = int(data["config"]["budget_tokens"])
            rising |= told.trend != FLAT
    reached = max(spent.values(), default=0)
    if rising and min(spent.values()) == reached:
        reached = next((b for b in cells[0].budgets if b > reached), reached)
    return [up_to(cell, reached) if cell.cell_id in spent else cell for cell in cells]


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
        complete: adds the validations to the result of a cell that has ended.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        results: Mapping[str, Mapping[str, Any]],
        cost: Callable[[Cell], float],
        *,
        retry_failed: bool = False,
        begin_s: float = 0.0,
        complete: Callable[[Cell, Mapping[str, Any]], Mapping[str, Any]] = lambda cell, data: data,
    ) -> None:
        self._begin_s, self._complete = begin_s, complete
        self._groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            self._groups[cell.group].append(cell)
        # Those that are carried on say what their rates were at rungs before.
        self._results = dict(without_failures(results) if retry_failed else results)
        self._cost = cost
        self._heaps: dict[str, _Heap] = defaultdict(_Heap)  # by kind
        self._longest: list[tuple[float, str, str]] = []  # of each kind, perhaps outdated
        self._left, self._n = 0.0, 0  # seconds and number of all
        self._known: set[tuple[str, int]] = set()  # cells, and how far they are to go
        self.plan = make_plan(cells, results, retry_failed=retry_failed)
        self.total = self.plan.total  # cells, more once other seeds decide between rates
        failed = (cell for cell, _ in self.plan.failed)
        self._counted = {c.cell_id for c in (*self.plan.todo, *self.plan.done, *failed)}
        for cell in self.plan.todo:
            self._add(cell)

    def _add(self, cell: Cell) -> None:
        key = cell.cell_id, cell.config.budget_tokens
        if key not in self._known:
            self._known.add(key)
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
        self._results[cell.cell_id] = self._complete(cell, data) if cell.config.tunes else data
        for other in _needed(self._groups[cell.group], self._results)[0]:
            if not counts(other, self._results):
                if other.config.tunes and other.cell_id not in self._counted:
                    self._counted.add(other.cell_id)
                    self.total += 1
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
