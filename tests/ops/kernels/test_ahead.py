from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from mechbench.ops.kernels import ahead
from mechbench.ops.kernels.ahead import Wanted, compile_all, noted, processes_for


@JITFunction  # triton.jit may give the interpreter's
def _scaled_kernel(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n) * 2, mask=at < n)


class _Launcher:
    folder = Path()

    def __init__(self, src: Any, metadata: Any) -> None:
        (self.folder / f"{metadata.hash}.launcher").write_text(str(os.getpid()))


class _Driver:
    """A GPU that can be compiled for."""

    launcher_cls = _Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What this process compiles: True where it found it in the cache on disk."""
    hits: list[bool] = []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(driver, "_active", _Driver())
    monkeypatch.setattr(_Launcher, "folder", tmp_path)
    monkeypatch.setattr(
        knobs.compilation, "listener", lambda *, cache_hit, **rest: hits.append(cache_hit)
    )
    _scaled_kernel.device_caches.clear()
    return hits


def _launch(x: Tensor, n: int = 64, block: int = 64) -> Any:
    y = torch.zeros_like(x)
    _scaled_kernel[(1,)](x, y, n, BLOCK=block)
    return y


def _noted() -> list[Wanted]:
    with noted(__name__) as wanted:
        for dtype in (torch.float32, torch.bfloat16):
            _launch(torch.ones(64, dtype=dtype))
            _launch(torch.ones(64, dtype=dtype), block=128)
            _launch(torch.ones(64, dtype=dtype), n=128)  # the same kernel
    return wanted


def test_what_would_be_launched_is_noted_once_and_not_compiled(compiled: list[bool]) -> None:
    wanted = _noted()
    assert [w[:2] for w in wanted] == [(__name__, "_scaled_kernel")] * 4
    assert len({w.specialization for w in wanted}) == 4
    assert not compiled


def test_what_was_noted_is_found_compiled(compiled: list[bool], tmp_path: Path) -> None:
    wanted = _noted()
    compile_all(wanted, 2)
    assert not compiled  # others did
    launchers = [path.read_text() for path in tmp_path.glob("*.launcher")]
    assert len(launchers) == 4
    assert str(os.getpid()) not in launchers
    for dtype in ("fp32", "bf16"):
        for block in (64, 128):
            _scaled_kernel.warmup(
                *[torch.ones(64, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])] * 2,
                64, BLOCK=block, grid=(1,),
            )  # fmt: skip
    assert compiled == [True] * 4


def test_what_is_compiled_is_not_launched_either(compiled: list[bool]) -> None:
    x = torch.ones(64)
    _scaled_kernel.warmup(x, x, 64, BLOCK=64, grid=(1,))
    with noted(__name__) as wanted:
        y = _launch(x)  # a launch would fail: there is no GPU
    assert not wanted
    assert not y.any()


def test_others_kernels_are_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(JITFunction, "run", lambda self, *a, warmup, **k: seen.append(warmup))
    with noted("mechbench.ops") as wanted:
        _launch(torch.ones(64))
    with noted(__name__):
        _launch(torch.ones(64))
    assert seen == [False, True]
    assert not wanted


def test_hooks_are_put_back_after_an_error() -> None:
    before = JITFunction.run, knobs.runtime.jit_cache_hook
    with pytest.raises(ZeroDivisionError), noted():
        raise ZeroDivisionError
    assert (JITFunction.run, knobs.runtime.jit_cache_hook) == before


def test_what_cannot_be_compiled_is_left_out(compiled: list[bool], tmp_path: Path) -> None:
    wanted = _noted()
    wrong = [Wanted("no_such_module", "kernel", "{}"), Wanted(__name__, "_scaled_kernel", "{}")]
    compile_all([*wrong, *wanted], 1)
    assert len([*tmp_path.glob("*.launcher")]) == 4
    compile_all([], 4)
    compile_all(wanted, 0)


def test_a_process_that_hangs_is_ended(
    compiled: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(_Driver, "launcher_cls", lambda *args: os.read(os.pipe()[0], 1))
    wanted = _noted()
    compile_all(wanted, 1)  # returns


def test_another_thread_may_wait_for_input(
    compiled: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a sweep's worker does; a copy that closed its input would wait for ever."""
    take, give = os.pipe()
    with os.fdopen(take) as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        reader = threading.Thread(target=lines.readline)
        reader.start()
        time.sleep(0.1)  # until it waits
        compile_all(_noted(), 2)
        os.close(give)
        reader.join()
    assert len([*tmp_path.glob("*.launcher")]) == 4


def test_processes_are_as_many_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert processes_for(100) == 16
    assert processes_for(100, beside=16) == 4
    assert processes_for(7) == 4
    assert processes_for(2) == processes_for(0) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert processes_for(100) == 0
