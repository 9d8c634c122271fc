"""Timing: how long a piece of work takes when repeated, and how much memory it needs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch

WARM_UP = {"cuda": 3, "cpu": 1}  # passes before the first timed one: plans, compiled kernels
_FLUSH_BYTES = 1 << 28  # written before every timed pass on CUDA: more than any L2 cache holds


def nothing() -> None:
    """Do nothing, where no preparation is needed."""


def times_ms(
    work: Callable[[], object],
    repeats: int,
    device: str,
    prepare: Callable[[], object] = nothing,
) -> tuple[float, ...]:
    """Return the milliseconds of `repeats` runs of `work`, after a warm-up.

    On CUDA between two events, with a cold L2 cache; on a CPU by the clock.

    Args:
        work: what is timed.
        repeats: timed runs.
        device: where it runs.
        prepare: run before each, untimed.
    """
    cuda = device.startswith("cuda")
    for _ in range(WARM_UP["cuda" if cuda else "cpu"]):
        prepare()
        work()
    return (_cuda_ms if cuda else _cpu_ms)(work, repeats, device, prepare)


def _cuda_ms(
    work: Callable[[], object], repeats: int, device: str, prepare: Callable[[], object]
) -> tuple[float, ...]:
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device=device)
    pairs = []
    for _ in range(repeats):
        prepare()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        flush.zero_()
        start.record()
        work()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize(device)
    return tuple(float(start.elapsed_time(end)) for start, end in pairs)


def _cpu_ms(
    work: Callable[[], object], repeats: int, device: str, prepare: Callable[[], object]
) -> tuple[float, ...]:
    samples = []
    for _ in range(repeats):
        prepare()
        start = time.perf_counter()
        work()
        samples.append(1e3 * (time.perf_counter() - start))
    return tuple(samples)


def peak_mib(work: Callable[[], object], device: str) -> float | None:
    """Return the most memory allocated at once while `work` runs, inputs and parameters included.

    None on a CPU, where nobody counts.
    """
    if not device.startswith("cuda"):
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def release(device: str) -> None:
    """Release the memory of a reading, so that the next one starts from an empty device."""
    if device.startswith("cuda"):
        gc.collect()
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            # A kernel has broken the context: the readings that follow say so, each in its status.
            return
