"""Ctrl-C and SIGTERM, noted and acted on between steps, so that a run can be resumed."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Stopper:
    """Context in which the first SIGINT or SIGTERM only sets `received`; the second one acts."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Stopper:
        """Install the handlers; outside the main thread signals stay as they are."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the handlers back."""
        self._restore()
