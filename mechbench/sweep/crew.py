"""Workers as the sweep sees them: each runs one cell at a time, and some share a process."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import threading
from collections.abc import Sequence
from typing import Any

from mechbench.plan.suite import Cell
from mechbench.sweep.process import Process

Event = tuple[int, dict[str, Any]]  # the number of a worker, and what it reports


class Crew:
    """The workers of one process, which are its lanes, and the thread that hears them.

    Args:
        numbers: of the workers; one alone has the process to itself.
        events: gets what they report, and once, for the first of them, that the process has ended.
        process: just started.
    """

    def __init__(
        self, numbers: Sequence[int], events: queue.SimpleQueue[Event], process: Process
    ) -> None:
        self.numbers, self.ready = tuple(numbers), False
        self.ending = False  # it has said that it takes no more orders
        self._process = process

        def hear() -> None:
            for line in process.reports():
                with contextlib.suppress(ValueError):  # half a line of a killed worker
                    report = json.loads(line)
                    events.put((self.numbers[report.pop("lane", 0)], report))
            events.put((self.numbers[0], {"event": "ended", "code": process.ended()}))

        self._thread = threading.Thread(target=hear, daemon=True)
        self._thread.start()

    def give(self, number: int, order: dict[str, Any]) -> None:
        """Send an order to a worker; if the process is dead already, its end is reported."""
        if len(self.numbers) > 1:
            order = {**order, "lane": self.numbers.index(number)}
        with contextlib.suppress(OSError):
            self._process.orders.write(json.dumps(order) + "\n")
            self._process.orders.flush()

    def stop(self) -> None:
        """Ask the workers to write checkpoints and end."""
        self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Send no more orders: the process then ends."""
        with contextlib.suppress(OSError):
            self._process.orders.close()

    def wait(self, seconds: float) -> None:
        """Wait for the process to end, and kill it after `seconds`."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._process.send_signal(signal.SIGKILL)
            self._thread.join()
        self.close()


class Worker:
    """One worker of a crew, and the cell that it runs."""

    def __init__(self, number: int, crew: Crew) -> None:
        self.number, self.crew = number, crew
        self.cell: Cell | None = None
        self.at: str | None = None  # kind of the last cell, see `Schedule.take`

    def give(self, cell: Cell, order: dict[str, Any]) -> None:
        """Send it the order for a cell."""
        self.cell, self.at = cell, cell.group
        self.crew.give(self.number, order)
