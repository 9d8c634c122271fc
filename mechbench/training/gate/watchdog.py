"""Warns of an operator that does not return. It ends nothing: the user decides."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

HANGS_S = 60.0  # without a finished call, after which a warning is given


class Watchdog:
    """Watches calls from a thread of its own.

    Args:
        operator: name, for the message.
        warn: told once.
        after_s: seconds that a call may take in silence.
    """

    def __init__(
        self, operator: str, warn: Callable[[str], None], after_s: float | None = None
    ) -> None:
        self._operator, self._warn = operator, warn
        self._after_s = HANGS_S if after_s is None else after_s
        self._busy: tuple[str, float] | None = None  # with what, since when
        self._told = False
        self._done = threading.Event()

    def busy(self, what: str) -> None:
        """Note that a call has begun."""
        self._busy = what, time.monotonic()

    def idle(self) -> None:
        """Note that the call has ended."""
        self._busy = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the context lasts."""
        thread = threading.Thread(target=self._watch, daemon=True, name="mechbench-watchdog")
        thread.start()
        try:
            yield
        finally:
            self.idle()
            self._done.set()

    def _watch(self) -> None:
        while not self._told and not self._done.wait(min(1.0, self._after_s / 4)):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Warn, once, if the call has lasted too long at the time `now`."""
        busy = self._busy
        if self._told or busy is None or now - busy[1] < self._after_s:
            return
        self._told = True
        self._warn(
            f"operator {self._operator!r} has not returned for {self._after_s:.0f} s ({busy[0]}); "
            "Ctrl-C, twice if need be, ends the run"
        )
