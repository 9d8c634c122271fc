"""Ctrl-C and SIGTERM, noted and acted on between steps, so that a run can be resumed; none lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType

_MOMENT_S = 0.01  # in which a finaliser or callback has returned


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


def send_lost_interrupts_again() -> None:
    """Have a Ctrl-C that Python could not raise where it arrived sent again, a moment later.

    In a finaliser or a callback, of which Python's import machinery has some, an exception can only
    be reported: the program would go on as if nobody had asked it to stop.
    """
    report = sys.unraisablehook

    def heed(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            report(lost)
            return
        again = threading.Timer(_MOMENT_S, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = heed
