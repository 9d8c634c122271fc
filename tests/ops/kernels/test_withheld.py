from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from mechbench.ops.kernels import withheld as module
from mechbench.ops.kernels.withheld import WithheldError, withheld


class Kernel:
    """Triton's JITFunction as far as it matters here."""

    def __init__(self, fn: Any) -> None:
        self.fn, self.launched = fn, 0

    def run(self, *args: Any, **kwargs: Any) -> None:
        self.launched += 1


def add_kernel() -> None: ...


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    jit = ModuleType("triton.runtime.jit")
    jit.JITFunction = Kernel  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "has_triton", lambda: True)
    for name in ("triton", "triton.runtime"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "triton.runtime.jit", jit)
    return Kernel(add_kernel)


def test_this_thread_launches_nothing_and_others_do(kernel: Kernel) -> None:
    with withheld(), ThreadPoolExecutor(1) as pool:
        with pytest.raises(WithheldError, match="kernel add_kernel was to be launched"):
            kernel.run(1, grid=(1,))
        pool.submit(kernel.run, 1, grid=(1,)).result()
    assert kernel.launched == 1
    kernel.run(1, grid=(1,))
    assert kernel.launched == 2


def test_without_triton_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_triton", lambda: False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with withheld():
        pass
