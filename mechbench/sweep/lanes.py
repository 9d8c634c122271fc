"""Several cells at once in one worker: a thread for each, of which one at a time runs Python."""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Any

from mechbench.sweep.worker import RemoteConsole, ending, run_order
from mechbench.training.baton import Baton
from mechbench.training.kept import Kept
from mechbench.training.lane import SharedLane

Send = Callable[[dict[str, Any]], None]
Orders = queue.SimpleQueue[dict[str, Any] | None]


class Lanes:
    """The lanes of a worker, made as orders for them come.

    Args:
        send: takes reports, one thread at a time.
    """

    def __init__(self, send: Send) -> None:
        self._send, self._sending = send, threading.Lock()
        self._baton = Baton()
        self._stopped: int | None = None
        self._orders: dict[int, Orders] = {}
        self._threads: list[threading.Thread] = []

    def give(self, order: dict[str, Any]) -> None:
        """Hand an order to the lane that it names."""
        number = order["lane"]
        if number not in self._orders:
            orders = self._orders[number] = queue.SimpleQueue()
            thread = threading.Thread(
                target=self._work, args=(number, orders), daemon=True, name=f"lane {number}"
            )
            self._threads.append(thread)
            thread.start()
        self._orders[number].put(order)

    def stop(self, signal_number: int) -> None:
        """Let cells that are trained write a checkpoint, and wait until all lanes have ended."""
        self._stopped = signal_number
        for orders in self._orders.values():
            orders.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.2)  # not for ever: a second signal is to be acted on

    def _work(self, number: int, orders: Orders) -> None:
        def send(report: dict[str, Any]) -> None:
            with self._sending:
                self._send({**report, "lane": number})

        lane, kept = SharedLane(self._baton, lambda: self._stopped), Kept(cells=True)
        try:
            while self._stopped is None and (order := orders.get()) is not None:
                with lane.on(order["device"]):
                    report = run_order(order, RemoteConsole(send), kept, lane)
                    ends = ending(report, order["device"])
                    send(report)
                    if ends:  # it was alone, or `SharedLane.failed` had ended the process
                        os._exit(1)
        except KeyboardInterrupt as stop:
            send({"event": "interrupted", "reason": str(stop)})
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # as a worker with one lane would end
