"""A thread that launches no Triton kernel.

Given tensors without a GPU's memory, as on the meta device, a kernel reads and writes wherever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NoReturn

from mechbench.ops.triton import has_triton


class WithheldError(RuntimeError):
    """A kernel was to be launched."""


@contextmanager
def withheld() -> Iterator[None]:
    """Refuse the launches of this thread while the context lasts.

    Raises:
        WithheldError: in place of a launch.
    """
    if not has_triton():
        yield
        return
    from triton.runtime.jit import JITFunction

    launch, thread = JITFunction.run, get_ident()

    def refuse(name: str) -> NoReturn:
        raise WithheldError(f"kernel {name} was to be launched where there is no GPU's memory")

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return refuse(self.fn.__name__) if get_ident() == thread else launch(self, *args, **kwargs)

    JITFunction.run = run
    try:
        yield
    finally:
        JITFunction.run = launch
