"""The machine's best rates: bytes per second of a copy, FLOPs per second of a matrix product."""

from __future__ import annotations

import statistics

import torch

from mechbench.bench.measure import release, times_ms
from mechbench.bench.record import Rates
from mechbench.training.devices import on

_COPY_BYTES = {"cuda": 1 << 29, "cpu": 1 << 25}
_SIDE = {"cuda": 8192, "cpu": 512}  # of the square matrices
_REPEATS = 10


def machine_rates(device: str, dtype: str) -> Rates:
    """Measure both rates, medians of a few runs.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        dtype: of the matrices.
    """
    with on(device):
        rates = Rates(copy_gb_s(device), matmul_tflop_s(device, dtype))
        release(device)
    return rates


def copy_gb_s(device: str) -> float:
    """Return the bandwidth of a copy, each byte read once and written once, in 1e9 bytes/s."""
    n = _COPY_BYTES[device.partition(":")[0]]
    source = torch.zeros(n, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = statistics.median(times_ms(lambda: target.copy_(source), _REPEATS, device))
    return 2 * n / ms / 1e6


def matmul_tflop_s(device: str, dtype: str) -> float:
    """Return the rate of a product of two large square matrices, in 1e12 FLOPs/s."""
    n = _SIDE[device.partition(":")[0]]
    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(a)
    ms = statistics.median(times_ms(lambda: torch.mm(a, b, out=out), _REPEATS, device))
    return 2 * n**3 / ms / 1e9
