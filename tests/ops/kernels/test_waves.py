from __future__ import annotations

import math

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.waves import cosine, sine

BLOCK = 1024


@triton.jit
def _kernel(x, s, c, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < N, other=0.0)
    tl.store(s + at, sine(value), mask=at < N)
    tl.store(c + at, cosine(value), mask=at < N)


def waves(x: Tensor, device: str) -> tuple[Tensor, Tensor]:
    x = x.to(device)
    s, c = torch.empty_like(x), torch.empty_like(x)
    _kernel[(triton.cdiv(len(x), BLOCK),)](x, s, c, len(x), BLOCK=BLOCK)
    return s.cpu().double(), c.cpu().double()


@pytest.mark.parametrize("largest", [1e-3, 1.0, 3.0, 40.0, 1000.0, 25000.0])
def test_waves_are_those_of_float64(kernel_device: str, largest: float) -> None:
    x = torch.linspace(-largest, largest, 20001)
    s, c = waves(x, kernel_device)
    assert (s - x.double().sin()).abs().max() < 2e-7 * min(1.0, largest)
    assert (c - x.double().cos()).abs().max() < 3e-7


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter
def test_huge_angles_are_bounded_and_no_number_stays_none(kernel_device: str) -> None:
    sizes = torch.logspace(5, 38, 34)
    for wave in waves(torch.cat([sizes, -sizes]), kernel_device):
        assert (wave.abs() <= 1.0 + 1e-6).all()
    for wave in waves(torch.tensor([math.nan, math.inf, -math.inf]), kernel_device):
        assert wave.isnan().all()
