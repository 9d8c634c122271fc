"""Fused kernels of `mechbench.ops.window`: one pass over the filters instead of three.

Those of the product make the filters from their factors, and read their gradient once for each:
the filters are written once, and never without their window.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_BLOCK = 1024
_SEGMENTS, _SHORTEST = 64, 512  # most segments, and least tokens of one, for sums over tokens


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


@triton.jit
def _window(alpha, c, t, C, D, step, shift, scale):
    """Return the window (channels, times) of channels c at times t."""
    rate = tl.load(alpha + c % D, mask=c < C, other=0.0) * step
    return (tl.exp(-rate[:, None] * t.to(tl.float32)[None, :]) + shift) * scale


@triton.jit
def _matrix(x, row, N, column, W):
    """Load rows of x (N, W), zeros beyond."""
    mask = (row < N)[:, None] & (column < W)[None, :]
    at = row[:, None].to(tl.int64) * W + column[None, :]
    return tl.load(x + at, mask=mask, other=0.0)


@triton.jit
def _product_kernel(
    weight, inner, alpha, out, L, C, D, W, step, shift, scale,
    BC: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    t = tl.program_id(1) * BT + tl.arange(0, BT)
    k = tl.arange(0, BW)
    a, b = _matrix(weight, c, C, k, W), _matrix(inner, t, L, k, W)
    h = tl.dot(a, tl.trans(b), input_precision="tf32x3")
    h *= _window(alpha, c, t, C, D, step, shift, scale)
    at = out + c[:, None].to(tl.int64) * L + t[None, :]
    tl.store(at, h, mask=(c < C)[:, None] & (t < L)[None, :])


@triton.jit
def _inner_gradient_kernel(
    grad, weight, alpha, dinner, L, C, D, W, step, shift, scale,
    BC: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    k = tl.arange(0, BW)
    total = tl.zeros((BT, BW), tl.float32)
    for first in range(0, C, BC):
        c = first + tl.arange(0, BC)
        g = _matrix(grad, c, C, t, L) * _window(alpha, c, t, C, D, step, shift, scale)
        a = _matrix(weight, c, C, k, W)
        total = tl.dot(tl.trans(g), a, total, input_precision="tf32x3")
    at = dinner + t[:, None].to(tl.int64) * W + k[None, :]
    tl.store(at, total, mask=(t < L)[:, None] & (k < W)[None, :])


@triton.jit
def _weight_gradient_kernel(
    grad, inner, alpha, part, L, C, D, W, step, shift, scale, span,
    BC: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    k = tl.arange(0, BW)
    total = tl.zeros((BC, BW), tl.float32)
    start = tl.program_id(1) * span
    for first in range(start, tl.minimum(start + span, L), BT):
        t = first + tl.arange(0, BT)
        g = _matrix(grad, c, C, t, L) * _window(alpha, c, t, C, D, step, shift, scale)
        total = tl.dot(g, _matrix(inner, t, L, k, W), total, input_precision="tf32x3")
    at = part + (tl.program_id(1).to(tl.int64) * C + c[:, None]) * W + k[None, :]
    tl.store(at, total, mask=(c < C)[:, None] & (k < W)[None, :])


def _sizes(W: int, BC: int, BT: int) -> dict[str, int]:
    return {"BC": BC, "BT": BT, "BW": max(16, triton.next_power_of_2(W))}


def product(
    weight: Tensor, inner: Tensor, alpha: Tensor, step: float, shift: float, scale: float
) -> Tensor:
    """Return weight (C, W) @ inner (L, W)^T times the window: (C, L), with alpha (D,) repeated."""
    (C, W), L = weight.shape, len(inner)
    out = torch.empty(C, L, dtype=torch.float32, device=inner.device)
    sizes = _sizes(W, 64, 64)
    grid = triton.cdiv(C, sizes["BC"]), triton.cdiv(L, sizes["BT"])
    _product_kernel[grid](
        weight, inner, alpha, out, L, C, len(alpha), W, step, shift, scale, **sizes, num_warps=4
    )
    return out


def product_backward(
    grad: Tensor,
    weight: Tensor,
    inner: Tensor,
    alpha: Tensor,
    step: float,
    shift: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and inner from that of `product`'s result, (C, L)."""
    (C, W), L = weight.shape, len(inner)
    dinner = torch.empty_like(inner)
    sizes = _sizes(W, 32, 64)
    _inner_gradient_kernel[(triton.cdiv(L, sizes["BT"]),)](
        grad, weight, alpha, dinner, L, C, len(alpha), W, step, shift, scale,
        **sizes, num_warps=4, num_stages=3,
    )  # fmt: skip
    sizes = _sizes(W, 64, 32)
    span = max(_SHORTEST, triton.cdiv(triton.cdiv(L, _SEGMENTS), sizes["BT"]) * sizes["BT"])
    grid = triton.cdiv(C, sizes["BC"]), triton.cdiv(L, span)
    part = torch.empty(grid[1], C, W, dtype=torch.float32, device=grad.device)
    _weight_gradient_kernel[grid](
        grad, inner, alpha, part, L, C, len(alpha), W, step, shift, scale, span,
        **sizes, num_warps=4, num_stages=3,
    )  # fmt: skip
    return summed(part), dinner
