"""Kernels compiled before they are needed, side by side.

At its first launch Triton compiles a kernel, and a C function that launches it: half a second for
the two, one kernel after another. It holds the interpreter meanwhile, so threads do not help. Here
a first pass over a model notes what it would launch (`noted`), and forked processes compile that
into Triton's cache on disk (`compile_all`), where the launches that follow find it.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import signal
import struct
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from triton import __version__, knobs
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from mechbench.ops.kernels import nvrtc
from mechbench.processors import processors

_MOST = 16  # processes
_EACH = 2  # kernels, for which a process is worth its start
_POLL_S = 0.005
_NUMBER = struct.Struct("H")  # of a kernel, in a pipe
_PATIENCE_S = 60.0  # after which what is missing is left to its first launch


class Wanted(NamedTuple):
    """A kernel for arguments of some kind, as Triton's `preload` takes it."""

    module: str
    name: str
    specialization: str


@contextmanager
def noted(package: str = "mechbench.ops") -> Iterator[list[Wanted | nvrtc.Source]]:
    """Launch no kernel of a package while the context lasts; give those that are not compiled.

    What such kernels should have written stays as it was allocated. Kernels of others are launched.
    All threads are affected, as a backward pass has one of its own.
    """
    wanted: dict[Wanted, None] = {}
    launch, hook = JITFunction.run, knobs.runtime.jit_cache_hook

    def ours(module: str) -> bool:
        return f"{module}.".startswith(f"{package}.")

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        warmup = warmup or ours(self.fn.__module__)
        return launch(self, *args, grid=grid, warmup=warmup, **kwargs)

    def note(*, fn: Any, compile: dict[str, Any], **rest: Any) -> bool:  # noqa: A002
        if ours(fn.module):
            wanted[Wanted(fn.module, fn.name, compile["specialization_data"])] = None
        return ours(fn.module)  # True: do not compile

    found: list[Wanted | nvrtc.Source] = []
    JITFunction.run, knobs.runtime.jit_cache_hook = run, note
    try:
        with nvrtc.noted() as sources:
            yield found
        found.extend(sources)  # first: they take longest
    finally:
        JITFunction.run, knobs.runtime.jit_cache_hook = launch, hook
        found.extend(wanted)


def processes_for(kernels: int, beside: int = 1) -> int:
    """Return how many processes to compile some kernels in; 0 where it would not pay.

    Args:
        kernels: their number.
        beside: processes that do the same at this time, with this one.
    """
    if not hasattr(os, "fork"):
        return 0
    processes = min(_MOST, processors() // beside, -(-kernels // _EACH))
    return processes if processes > 1 else 0


def compile_all(wanted: Sequence[Wanted | nvrtc.Source], processes: int) -> None:
    """Compile kernels, and what launches them, into Triton's cache on disk.

    Whatever fails is left to the first launch, which says why.

    Args:
        wanted: from `noted`.
        processes: at most so many; forked, as a new one would take seconds to import what this one
            has. They touch neither PyTorch nor the GPU.
    """
    if not wanted or processes < 1:
        return
    stub = _Stub(driver.active)
    take, give = os.pipe()
    os.write(give, b"".join(_NUMBER.pack(i) for i in range(len(wanted))))
    os.close(give)
    running: list[int] = []
    try:
        with warnings.catch_warnings():  # Python warns of forks beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(processes):
                # Not by multiprocessing: its copies close standard input, which another thread of
                # this process may be reading.
                pid = os.fork()
                if pid == 0:
                    try:
                        _work(wanted, take, stub)
                    finally:
                        os._exit(0)
                running.append(pid)
        deadline = time.monotonic() + _PATIENCE_S
        while running and time.monotonic() < deadline:
            running = [pid for pid in running if os.waitpid(pid, os.WNOHANG)[0] == 0]
            time.sleep(_POLL_S)
    finally:
        os.close(take)
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def mark(what: str) -> Path:
    """Return a file, beside the compiled kernels, that says that all `what` needs are there.

    It has another name for other sources of our operations, another GPU or another Triton.
    """
    target = driver.active.get_current_target()
    digest = hashlib.sha256(f"{what} {target} {__version__}".encode())
    for path in sorted(Path(__file__).parents[1].rglob("*")):
        if path.suffix in (".py", ".cu", ".cuh"):
            digest.update(path.read_bytes())
    return Path(knobs.cache.dir) / f"mechbench-{digest.hexdigest()[:32]}"


class _Stub:
    """What compiling asks a driver for, without a call to the GPU."""

    def __init__(self, real: Any) -> None:
        self._target, self._device = real.get_current_target(), real.get_current_device()
        self.launcher_cls = real.launcher_cls

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> Any:
        return self._device


def _compile(wanted: Wanted | nvrtc.Source, stub: _Stub) -> None:
    if isinstance(wanted, nvrtc.Source):
        nvrtc.compiled(wanted)
        return
    module, name, specialization = wanted
    kernel = getattr(importlib.import_module(module), name).preload(specialization)
    stub.launcher_cls(kernel.src, kernel.metadata)


def _work(wanted: Sequence[Wanted | nvrtc.Source], numbers: int, stub: _Stub) -> None:
    """Compile what the numbers in a pipe stand for, one after another until none is left."""
    gc.disable()  # a tensor that belongs to the parent must not be freed here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to act on
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    driver.set_active(stub)
    while number := os.read(numbers, _NUMBER.size):
        with suppress(Exception):
            _compile(wanted[_NUMBER.unpack(number)[0]], stub)
