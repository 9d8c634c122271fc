"""A sweep's worker: a process that imports torch once and runs cells until it is told to stop.

Orders come as JSON lines on standard input, reports go as JSON lines to standard output:

    {"call": {..}, "cell_id": .., "device": .., "out": .., "plugins": [..], "code": {..},
     "checkpoint_s": .., "log": .., "lane": ..}
    {"event": "ready" | "bar" | "tokens" | "row" | "warn" | "done" | "refused" | "failed" | "busy"
              | "interrupted", ..}

"refused" is one cell's: it does not resolve here to what was planned. "failed" stops the sweep: a
result cannot be stored.

A report with "ends": the cell has broken the GPU for its process, which takes no more orders.

Where orders name lanes, cells run at once, one in each lane, and reports name theirs, see
`mechbench.sweep.lanes`.

When standard input ends, or nobody reads the reports any more, the sweep is gone and so is the
worker: whatever it was doing continues from the checkpoint at the next start.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechbench.console.progress_bar import Console
from mechbench.errors import BusyError, MechbenchError, OperatorError, ResultError
from mechbench.record.config import Config
from mechbench.record.results import RETRIED, read_result

if TYPE_CHECKING:
    from mechbench.training.kept import Kept
    from mechbench.training.lane import Lane

Send = Callable[[dict[str, Any]], None]
_EVERY_S = 0.2  # between reports of tokens
_LOOK_S = 0.1  # between looks at whether a signal has come


class RemoteBar:
    """A bar that another process draws; it is told of tokens a few times a second."""

    def __init__(self, send: Send) -> None:
        self._send, self._tokens, self._sent = send, 0, time.monotonic()

    def advance(self, tokens: int) -> None:
        """Count a step's tokens."""
        self._tokens += tokens
        if time.monotonic() - self._sent >= _EVERY_S:
            self._send({"event": "tokens", "tokens": self._tokens})
            self._tokens, self._sent = 0, time.monotonic()

    def row(self, row: dict[str, Any]) -> None:
        """Pass on a row of metrics."""
        self._send({"event": "row", "row": row})


class RemoteConsole(Console):
    """Messages and bars for another process to show."""

    def __init__(self, send: Send) -> None:
        super().__init__(quiet=True)
        self._send = send

    def warn(self, text: str) -> None:
        """Pass on a warning."""
        self._send({"event": "warn", "text": text})

    @contextlib.contextmanager
    def bar(self, total: int, initial: int, title: str) -> Iterator[Any]:
        """Pass on that a bar begins."""
        self._send({"event": "bar", "total": total, "initial": initial, "title": title})
        yield RemoteBar(self._send)


def run_order(
    order: dict[str, Any], console: Console, kept: Kept | None = None, lane: Lane | None = None
) -> dict[str, Any]:
    """Run one cell and return the report of how it ended.

    Args:
        order: see the module.
        console: told of progress.
        kept: what the worker keeps from cell to cell.
        lane: the cell's place beside others in this process.

    Raises:
        KeyboardInterrupt: the worker was told to stop; the checkpoint is written.
    """
    from mechbench.catalogue.plugins import load_plugins
    from mechbench.console.tracking import TrackedConsole
    from mechbench.plan.resolve import resolve
    from mechbench.sweep.failure import store_failure
    from mechbench.training.cell import run
    from mechbench.training.lane import SOLE

    try:
        load_plugins(tuple(order["plugins"]))
        config, device = resolve(**order["call"], device=order["device"])
        if config.cell_id != order["cell_id"]:
            return {"event": "refused", "reason": _other(config, order)}
        if order["log"] != "none":
            name = f"{config.operator}-{config.task}-{config.seqlen}-{config.cell_id}"
            console = TrackedConsole(console, order["log"], Path(order["out"]), name)
        try:
            result = run(
                **order["call"],
                plugins=order["plugins"],
                device=device,
                out=order["out"],
                checkpoint_s=order["checkpoint_s"],
                console=console,
                kept=kept,
                lane=lane or SOLE,
            )
        except OperatorError as error:
            result = read_result(Path(order["out"]) / config.cell_id / "result.json")
            if result.data["status"] not in RETRIED:  # of a smaller budget, and kept
                result = store_failure(config, device, order["out"], str(error))
        except ResultError:
            raise
        except Exception as error:
            # Whatever the error is, it concerns this cell only: the others go on.
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            result = store_failure(config, device, order["out"], reason)
    except BusyError as error:
        return {"event": "busy", "reason": str(error)}
    except ResultError as error:
        return {"event": "failed", "reason": str(error)}
    except MechbenchError as error:
        return {"event": "refused", "reason": str(error)}
    return {"event": "done", "result": result.data}


def ending(report: dict[str, Any], device: str) -> bool:
    """Return whether the process must end after a report, and say so in it.

    A fault of a kernel breaks a GPU for all cells that would follow in the same process.
    """
    from mechbench.training.lane import broken

    failed = report["event"] == "done" and report["result"]["status"] != "ok"
    ends = failed and broken(device)
    if ends:
        report["ends"] = True
    return ends


def _other(config: Config, order: dict[str, Any]) -> str:
    """Say why a cell differs here from what was planned."""
    here = {**config.plugins, **config.sources}
    planned = order.get("code", here)
    names = sorted(n for n in {*here, *planned} if here.get(n) != planned.get(n))
    if names:
        return (
            f"{', '.join(names)} changed since the sweep was planned: start it again, to run what "
            "remains with the code as it is"
        )
    return f"cell {order['cell_id']} has other settings here than where it was planned"


def main() -> None:
    """Take orders until standard input ends."""
    reports = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what an operator prints must not stand among the reports
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def send(report: dict[str, Any]) -> None:
        try:
            reports.write(json.dumps(report) + "\n")
            reports.flush()
        except BrokenPipeError:  # the sweep is gone, which is no failure of the cell
            os._exit(0)

    def listen() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        os._exit(0)  # the sweep is gone, or has nothing left

    threading.Thread(target=listen, daemon=True).start()
    try:
        import mechbench.training.cell  # noqa: F401  # the slow part, before the first order
        from mechbench.catalogue.plugins import keep_plugins
        from mechbench.training.kept import Kept

        keep_plugins()
        gc.freeze()  # what is loaded is no garbage, and takes long to go through
        send({"event": "ready"})
        order = orders.get()
        if "lane" in order:
            _run_lanes(order, orders, send)
            return
        kept = Kept(cells=True)
        while True:
            report = run_order(order, RemoteConsole(send), kept)
            ends = ending(report, order["device"])
            send(report)
            if ends:
                os._exit(1)
            order = orders.get()
    except KeyboardInterrupt as stop:
        send({"event": "interrupted", "reason": str(stop)})


def _run_lanes(
    order: dict[str, Any], orders: queue.SimpleQueue[dict[str, Any]], send: Send
) -> None:
    """Hand orders to lanes until a signal comes: only this thread hears of one."""
    from mechbench.console.signals import Stopper
    from mechbench.sweep.lanes import Lanes

    lanes = Lanes(send)
    with Stopper() as stopper:
        lanes.give(order)
        while stopper.received is None:
            with contextlib.suppress(queue.Empty):
                lanes.give(orders.get(timeout=_LOOK_S))
        lanes.stop(stopper.received)
