from __future__ import annotations

import io
import json
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mechbench.sweep.crew import Crew, Event


class Fake:
    """A process that writes given lines, and ends when it is told to."""

    def __init__(self, *lines: str) -> None:
        self.orders = io.StringIO()
        self.signals: list[int] = []
        self._lines, self._end = lines, threading.Event()

    def reports(self) -> Iterator[str]:
        yield from self._lines

    def ended(self) -> int:
        assert self._end.wait(30)
        return 7

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        self._end.set()


def heard(events: queue.SimpleQueue[Event], n: int) -> list[Event]:
    return [events.get(timeout=30) for _ in range(n)]


def order(fake: Fake) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fake.orders.getvalue())
    return found


@pytest.mark.parametrize("numbers", [[3], [4, 5, 6]])
def test_reports_are_of_the_worker_whose_lane_they_name(numbers: list[int]) -> None:
    last = len(numbers) - 1
    lines = '{"event": "ready"}', '{"event": "row"', json.dumps({"event": "row", "lane": last})
    fake, events = Fake(*lines), queue.SimpleQueue[Event]()
    crew = Crew(numbers, events, fake)
    assert heard(events, 2) == [(numbers[0], {"event": "ready"}), (numbers[-1], {"event": "row"})]
    crew.stop()
    assert heard(events, 1) == [(numbers[0], {"event": "ended", "code": 7})]
    assert fake.signals == [signal.SIGTERM]
    crew.wait(1.0)
    assert fake.orders.closed
    assert events.empty()


def test_orders_name_a_lane_where_there_are_several() -> None:
    for numbers, number, expected in ([3], 3, {"a": 1}), ([4, 5], 5, {"a": 1, "lane": 1}):
        fake = Fake()
        crew = Crew(numbers, queue.SimpleQueue(), fake)
        crew.give(number, {"a": 1})
        assert order(fake) == expected
        crew.stop()
        crew.wait(1.0)


def test_a_process_that_does_not_end_is_killed() -> None:
    fake = Fake()
    Crew([0], queue.SimpleQueue(), fake).wait(0.01)
    assert fake.signals == [signal.SIGKILL]
