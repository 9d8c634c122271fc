"""A baton: of several threads the one that holds it runs, and it goes round at given points only.

What lies between two such points is done by one thread without the others, as if there were none:
all that is set in the process for a while (random generators, a capture, patched functions) needs
no other lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Baton:
    """Held by one thread at a time, and handed on in the order in which threads asked for it.

    As a context: to take part, from waiting for the baton to giving it away, whatever is raised.
    """

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()
        self._outside = 0  # threads that have released it for a while
        self.members = 0  # threads that take part: hold it, wait for it or have released it

    def __enter__(self) -> Baton:
        """Wait for the baton."""
        with self._state:
            self.members += 1
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it to the next, or to nobody."""
        with self._state:
            self.members -= 1
        self._give()

    @property
    def wanted(self) -> bool:
        """Whether a thread waits for it."""
        return bool(self._waiting)

    def pass_on(self) -> None:
        """Let every thread that waits run before this one goes on; nothing happens if none does."""
        with self._state:
            if not self._waiting:
                return
            turn = self._ask()
            self._waiting.popleft().release()
        turn.acquire()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let others run while this thread waits for something else, and then for the baton."""
        with self._state:
            self._outside += 1
        self._give()
        try:
            yield
        finally:
            with self._state:
                self._outside -= 1
                self._state.notify_all()
            self._take()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no thread is in `released`, and keep the baton; none can enter it then."""
        with self._state:
            self._state.wait_for(lambda: self._outside == 0)
        yield

    def _ask(self) -> threading.Lock:
        turn = threading.Lock()
        turn.acquire()
        self._waiting.append(turn)
        return turn

    def _take(self) -> None:
        with self._state:
            if not self._held:
                self._held = True
                return
            turn = self._ask()
        turn.acquire()  # it stays held, now by this thread

    def _give(self) -> None:
        with self._state:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False
