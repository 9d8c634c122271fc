"""What a thread marks its work as, for a counter of FLOPs: the cost is that of the function.

What is kept and what is computed again, and with which backend, is a choice of the implementation;
two forms of one function should cost the same.
"""

from __future__ import annotations

import threading


class Mark(threading.local):
    """True in a thread while it is within `with mark:`, which may be nested."""

    _depth = 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1

    def __bool__(self) -> bool:
        return self._depth > 0


COMPUTED_AGAIN = Mark()  # what a backward pass computes a second time, so as not to keep it
COUNTED = Mark()  # what is computed to be counted
