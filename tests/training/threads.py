"""Threads that end with a test."""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE_S = 30.0


def in_threads(*works: Callable[[], None]) -> list[BaseException]:
    """Run each in a thread of its own to its end; return what they raised."""
    raised: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    return raised
