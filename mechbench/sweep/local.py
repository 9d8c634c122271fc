"""Running cells on this machine: worker processes take orders, and are replaced if they die."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mechbench.console.signals import Stopper
from mechbench.errors import ResultError
from mechbench.plan.suite import Cell
from mechbench.processors import processors
from mechbench.sweep.crew import Crew, Event, Worker
from mechbench.sweep.failure import store_failure
from mechbench.sweep.job import ATTEMPTS, Job
from mechbench.sweep.plan import Schedule
from mechbench.sweep.process import Template, start
from mechbench.sweep.progress import SweepProgress, describe

_BUSY_S = 2.0  # until a cell that another process holds is tried again
_BUSY_TRIES = 5
_STOP_S = 60.0  # for a worker to write its checkpoint


class LocalExecutor:
    """Runs a schedule on worker processes.

    Args:
        devices: one for each worker; those of one process have the same.
        job: what all orders have in common.
        progress: told of what happens.
        template: that workers are copied from, if there is one.
        lanes: workers a process.
    """

    def __init__(
        self,
        devices: Sequence[str],
        job: Job,
        progress: SweepProgress,
        template: Template | None = None,
        lanes: int = 1,
    ) -> None:
        self._template, self._lanes = template, lanes
        self._devices, self._job, self._progress = tuple(devices), job, progress
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        processes = -(-len(self._devices) // lanes)
        self._threads = max(1, processors() // processes)
        self._deaths: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._later: list[tuple[float, Cell]] = []  # in use elsewhere, and when to try again
        # Out of memory beside others, or in flight with others when their process died: once more
        # with a device to itself, at the end.
        self._alone: list[Cell] = []
        self._last_round = len(set(self._devices)) == len(self._devices)
        self.workers: dict[int, Worker] = {}

    def run(self, schedule: Schedule) -> int | None:
        """Run until nothing is left; return the number of the signal that ended it early.

        Raises:
            ResultError: a worker cannot start, or a result cannot be stored; the other workers
                write their checkpoints.
        """
        try:
            with Stopper() as stopper:
                while stopper.received is None and self._anything_left(schedule):
                    self._give(schedule)
                    with contextlib.suppress(queue.Empty):
                        number, report = self._events.get(timeout=0.2)
                        self._hear(self.workers[number], report, schedule)
                if stopper.received is not None:
                    self._progress.say(f"stopping: checkpoints first, at most {_STOP_S:.0f} s")
                return stopper.received
        finally:
            self._stop()

    def _anything_left(self, schedule: Schedule) -> bool:
        now = time.monotonic()
        for due in [item for item in self._later if item[0] <= now]:
            self._later.remove(due)
            schedule.again(due[1])
        if len(schedule) or self._later or any(w.cell for w in self.workers.values()):
            return True
        self._last_round = True
        while self._alone:
            schedule.again(self._alone.pop())
        return len(schedule) > 0

    def _give(self, schedule: Schedule) -> None:
        """Give each idle worker a cell; workers start when there is something for them."""
        used = set()
        for number, device in enumerate(self._devices):
            worker = self.workers.get(number)
            if self._last_round and device in used:
                continue
            used.add(device)
            if worker is not None and (worker.cell is not None or worker.crew.ending):
                continue
            at = None if worker is None else worker.at
            if (cell := schedule.take(at, self._kinds_but(number))) is not None:
                if worker is None:
                    self._start(number)
                self.workers[number].give(cell, self._job.order(cell, device))

    def _start(self, number: int) -> None:
        """Start the process of a worker, and with it the others that are its lanes."""
        first = number - number % self._lanes
        numbers = range(first, min(first + self._lanes, len(self._devices)))
        crew = Crew(numbers, self._events, start(self._template, self._threads))
        self.workers |= {number: Worker(number, crew) for number in numbers}

    def _kinds_but(self, number: int) -> list[str]:
        """Return the kinds that the other workers are at, of those that go on."""
        others = [worker for worker in self.workers.values() if worker.number != number]
        return [w.at for w in others if w.at and (w.cell or not self._last_round)]

    def _hear(self, worker: Worker, report: dict[str, Any], schedule: Schedule) -> None:
        event, cell = report["event"], worker.cell
        if event == "ready":
            worker.crew.ready = True
        elif event == "ended":
            self._ended(worker.crew, report["code"], schedule)
        elif event in ("done", "refused", "failed", "busy") and cell is not None:
            worker.cell = None
            worker.crew.ending |= "ends" in report
            if event == "failed":
                raise ResultError(report["reason"])
            if event == "busy":
                self._busy(cell, report["reason"])
            elif event == "refused":
                self._fail(cell, report["reason"], schedule)
            elif report["result"]["status"] == "out-of-memory" and not self._last_round:
                self._alone.append(cell)
            else:
                self._record(cell, report["result"], schedule)
        else:
            self._progress.heard(worker.number, report)

    def _ended(self, crew: Crew, code: int, schedule: Schedule) -> None:
        lost = [self.workers.pop(number).cell for number in crew.numbers]
        crew.close()
        if not crew.ready:
            raise ResultError(f"a worker process cannot start: exit status {code}")
        cells = [cell for cell in lost if cell is not None]
        for cell in cells:
            self._died(cell, code, schedule, beside_others=len(cells) > 1)

    def _record(self, cell: Cell, data: dict[str, Any], schedule: Schedule) -> None:
        schedule.finished(cell, data)
        self._progress.finished(cell, data, schedule.total)

    def _fail(self, cell: Cell, reason: str, schedule: Schedule) -> None:
        """Store that a cell failed; the other cells go on."""
        device = cell.config.device_type
        stored = store_failure(cell.config, device, self._job.out, reason)
        self._record(cell, stored.data, schedule)

    def _busy(self, cell: Cell, reason: str) -> None:
        self._refusals[cell.cell_id] += 1
        if self._refusals[cell.cell_id] < _BUSY_TRIES:
            self._later.append((time.monotonic() + _BUSY_S, cell))
        else:
            self._progress.say(f"left to another process: {reason}")

    def _died(self, cell: Cell, code: int, schedule: Schedule, beside_others: bool) -> None:
        """Try a cell again after its worker was lost; store a failure if that repeats.

        Of several in flight in one process any may be at fault: each is tried again alone.
        """
        self._deaths[cell.cell_id] += 1
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        self._progress.say(f"worker lost ({how}) at {describe(cell)}")
        if beside_others or self._deaths[cell.cell_id] < ATTEMPTS:
            if self._lanes > 1:
                self._alone.append(cell)
            else:
                schedule.again(cell)
            return
        text = f"the worker process died ({how}), {ATTEMPTS} times of {ATTEMPTS}"
        self._fail(cell, text, schedule)

    def _stop(self) -> None:
        """End the workers, those at work with a checkpoint."""
        crews = {worker.crew for worker in self.workers.values()}
        busy = {worker.crew for worker in self.workers.values() if worker.cell is not None}
        for crew in crews:
            crew.stop() if crew in busy else crew.close()
        deadline = time.monotonic() + _STOP_S
        for crew in crews:
            crew.wait(max(0.0, deadline - time.monotonic()))
        self.workers.clear()
