"""Fused kernel of `mechbench.ops.window`: one pass over the filters instead of three."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _kernel(h, alpha, out, L, D, step, shift, scale, BLOCK: tl.constexpr):
    block, row = tl.program_id(0), tl.program_id(1)
    t = block * BLOCK + tl.arange(0, BLOCK)
    rate = tl.load(alpha + row % D) * step
    window = (tl.exp(-rate * t.to(tl.float32)) + shift) * scale
    at = row.to(tl.int64) * L + t
    value = tl.load(h + at, mask=t < L, other=0.0)
    tl.store(out + at, value * window, mask=t < L)


def scale_rows(h: Tensor, alpha: Tensor, step: float, shift: float, scale: float) -> Tensor:
    """Return h (N, D, L) float32 times the window of `mechbench.ops.window`, contiguous."""
    h = h.contiguous()
    out = torch.empty_like(h)
    N, D, L = h.shape
    block = min(_BLOCK, triton.next_power_of_2(L))
    _kernel[(triton.cdiv(L, block), N * D)](h, alpha, out, L, D, step, shift, scale, BLOCK=block)
    return out
