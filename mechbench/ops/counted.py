"""Whether this thread counts FLOPs: a cost is that of the function, not of how it is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STATE = threading.local()


@contextmanager
def being_counted() -> Iterator[None]:
    """Mark what this thread computes within as done to count it."""
    before, _STATE.counted = is_counted(), True
    try:
        yield
    finally:
        _STATE.counted = before


def is_counted() -> bool:
    """Return whether what this thread computes now is done to count it."""
    return getattr(_STATE, "counted", False)
