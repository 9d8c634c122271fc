"""What a backward pass computes a second time, so as not to keep it: no work of the operator's.

A counter of FLOPs leaves it out: what is kept and what is computed again is a choice of the
implementation, and two forms of one function should cost the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STATE = threading.local()


@contextmanager
def computed_again() -> Iterator[None]:
    """Mark what this thread computes within as computed before."""
    before, _STATE.again = is_again(), True
    try:
        yield
    finally:
        _STATE.again = before


def is_again() -> bool:
    """Return whether what this thread computes now was computed before."""
    return getattr(_STATE, "again", False)
