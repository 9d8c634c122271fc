"""Kernels of `mechbench.ops.unit`, a pass each way.

With r = 1 / sqrt(|x|^2 + eps), y = scale r x and dx = scale r (dy - r^2 x (x . dy)).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import put, rows, strides
from mechbench.ops.triton import beside

_TILE = 1024  # numbers in a tile


@triton.jit
def _kernel(
    x, dy, out, xb, xh, xt, gb, gh, gt, L, H, d, scale, eps,
    BACKWARD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Store y, or dx; `out` is (B, L, H, d)."""
    b, h = tl.program_id(1).to(tl.int64) // H, tl.program_id(1) % H
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    value = rows(x + b * xb + h * xh, t, L, xt, d, BLOCK)
    norm = tl.rsqrt(tl.sum(value * value, 1) + eps)[:, None]
    if BACKWARD:
        grad = rows(dy + b * gb + h * gh, t, L, gt, d, BLOCK)
        along = tl.sum(value * grad, 1)[:, None]
        value = grad - norm * norm * value * along
    put(out + (b * L * H + h) * d, t, L, H * d, d, scale * norm * value, BLOCK)


def forward(x: Tensor, scale: float, eps: float) -> Tensor:
    """Compute `unit`: float32, laid out so that the heads join without a copy."""
    return _run(x, x, scale, eps, dtype=torch.float32, back=False)


def backward(x: Tensor, dy: Tensor, scale: float, eps: float) -> Tensor:
    """Return the gradient of x."""
    return _run(x, dy, scale, eps, dtype=x.dtype, back=True)


def _run(
    x: Tensor, dy: Tensor, scale: float, eps: float, *, dtype: torch.dtype, back: bool
) -> Tensor:
    B, H, L, d = x.shape
    x, dy = beside(x), beside(dy)
    out = torch.empty(B, L, H, d, device=x.device, dtype=dtype)
    width = triton.next_power_of_2(d)
    tile = max(1, _TILE // width)
    _kernel[(triton.cdiv(L, tile), B * H)](
        x, dy, out, *strides(x, dy), L, H, d, scale, eps, BACKWARD=back, ROWS=tile, BLOCK=width
    )
    return out.transpose(1, 2)
