"""Fused kernels of `mechbench.ops.window`: one pass over the filters instead of three.

Those of the product make the filters from their factors, and read their gradient once for each:
the filters are written once, and never without their window. They are as fast as memory only where
each tile of the filters passes through shared memory once. Hence

- times, rates and shifts are loaded where a tile of the gradient is a product's first factor: the
  compiler moves loads, but no ranges and no scalars, to where the tensor cores want them;
- the smaller factor of a product is the one that is transposed; the weight is stored so beforehand.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.parts import factor, parts, product_of_parts, transposed_factor
from mechbench.ops.kernels.sums import summed

_BLOCK = 1024
_PROGRAMS = 264, 396  # two and three on each of an H100's multiprocessors
_MANY = 512  # channels from which a program of the weight's gradient takes twice as many
_SHORTEST = 256  # least tokens of a segment, for sums over tokens


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
def _rates(alpha, c, C, D, step):
    """Return the rates of channels c, for powers of two."""
    return tl.load(alpha + c % D, mask=c < C, other=0.0) * (step * -1.4426950408889634)


@triton.jit
def _tabulate(weight, alpha, table, c, k, C, D, W, step, shift):
    """Store what the backward reads of channels c: see `product`."""
    high, low = parts(transposed_factor(weight, c, C, k, W))
    mask = (k < W)[:, None] & (c < C)[None, :]
    at = table + k[:, None] * C + c[None, :]
    tl.store(at, high, mask=mask)
    tl.store(at + (W + 1) * C, low, mask=mask)
    rate = _rates(alpha, c, C, D, step)
    tl.store(table + W * C + c, rate, mask=c < C)
    tl.store(table + (2 * W + 1) * C + c, tl.zeros_like(rate) + shift, mask=c < C)


@triton.jit
def _product_kernel(
    weight, inner, alpha, out, table, times, L, C, D, W, step, shift, scale, span,
    BC: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Make a span of channels at a few times; the first programs store the table instead."""
    k = tl.arange(0, BW)
    start = tl.program_id(1) * span
    if tl.program_id(0) == 0:
        for first in range(start, tl.minimum(start + span, C), BC):
            c = first + tl.arange(0, BC)
            _tabulate(weight, alpha, table, c, k, C, D, W, step, shift)
    else:
        t = (tl.program_id(0) - 1) * BT + tl.arange(0, BT)
        high, low = parts(factor(inner, t, L, k, W))
        high, low = tl.trans(high), tl.trans(low)
        time = t.to(tl.float32)
        if start == 0:
            tl.store(times + t, time, mask=t < L)
        for first in range(start, tl.minimum(start + span, C), BC):
            c = first + tl.arange(0, BC)
            a, b = parts(factor(weight, c, C, k, W))
            rate = _rates(alpha, c, C, D, step)
            h = product_of_parts(a, b, high, low)
            h *= (tl.exp2(rate[:, None] * time[None, :]) + shift) * scale
            at = out + c[:, None].to(tl.int64) * L + t[None, :]
            tl.store(at, h, mask=(c < C)[:, None] & (t < L)[None, :])


@triton.jit
def _inner_gradient_kernel(
    grad, table, times, dinner, L, C, W, scale,
    BC: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    k = tl.arange(0, BW)
    time = tl.load(times + t, mask=t < L, other=0.0)
    rest = table + (W + 1) * C
    total = tl.zeros((BT, BW), tl.float32)
    for first in range(0, C, BC):
        c = first + tl.arange(0, BC)
        rate = tl.load(table + W * C + c, mask=c < C, other=0.0)
        shift = tl.load(rest + W * C + c, mask=c < C, other=0.0)
        g = transposed_factor(grad, c, C, t, L)
        g *= tl.exp2(rate[None, :] * time[:, None]) + shift[None, :]
        a, b = parts(g)
        high, low = factor(table, k, W, c, C), factor(rest, k, W, c, C)
        total += product_of_parts(a, b, tl.trans(high), tl.trans(low))
    at = dinner + t[:, None].to(tl.int64) * W + k[None, :]
    tl.store(at, total * scale, mask=(t < L)[:, None] & (k < W)[None, :])


@triton.jit
def _weight_gradient_kernel(
    grad, inner, alpha, part, L, C, D, W, step, shift, scale, span,
    BC: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    k = tl.arange(0, BW)
    rate = _rates(alpha, c, C, D, step)
    total = tl.zeros((BW, BC), tl.float32)
    start = tl.program_id(1) * span
    for first in range(start, tl.minimum(start + span, L), BT):
        t = first + tl.arange(0, BT)
        a, b = parts(transposed_factor(inner, t, L, k, W))
        g = factor(grad, c, C, t, L)
        g *= tl.exp2(rate[:, None] * t.to(tl.float32)[None, :]) + shift
        high, low = parts(g)
        total += product_of_parts(a, b, tl.trans(high), tl.trans(low))
    at = part + (tl.program_id(1).to(tl.int64) * C + c[None, :]) * W + k[:, None]
    tl.store(at, total * scale, mask=(c < C)[None, :] & (k < W)[:, None])


def _sizes(W: int, BC: int, BT: int) -> dict[str, int]:
    return {"BC": BC, "BT": BT, "BW": max(16, triton.next_power_of_2(W))}


def _span(n: int, block: int, programs: int, shortest: int) -> int:
    """Return how many of n each of so many programs takes: whole blocks."""
    return max(shortest, triton.cdiv(triton.cdiv(n, max(1, programs)), block) * block)


def product(
    weight: Tensor, inner: Tensor, alpha: Tensor, step: float, shift: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight (C, W) @ inner (L, W)^T times the window: (C, L), with alpha (D,) repeated.

    Also a table (2, W + 1, C) and the times (L,), for the backward: both parts of the weight
    transposed, and below them rates (for powers of two) and shifts.
    """
    (C, W), L = weight.shape, len(inner)
    out, table, times = (inner.new_empty(n) for n in ((C, L), (2, W + 1, C), L))
    sizes = _sizes(W, 64, 64)
    blocks = triton.cdiv(L, sizes["BT"])
    span = _span(C, sizes["BC"], _PROGRAMS[1] // blocks, sizes["BC"])
    _product_kernel[blocks + 1, triton.cdiv(C, span)](
        weight, inner, alpha, out, table, times, L, C, len(alpha), W, step, shift, scale, span,
        **sizes, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out, table, times


def product_backward(
    grad: Tensor,
    inner: Tensor,
    alpha: Tensor,
    table: Tensor,
    times: Tensor,
    window: tuple[float, float, float],
) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and inner from that of `product`'s result, (C, L)."""
    (L, W), C = inner.shape, table.shape[-1]
    step, shift, scale = window
    dinner = torch.empty_like(inner)
    sizes = _sizes(W, 32, 128)
    _inner_gradient_kernel[(triton.cdiv(L, sizes["BT"]),)](
        grad, table, times, dinner, L, C, W, scale, **sizes, num_warps=8, num_stages=3
    )
    few = C < _MANY
    sizes = _sizes(W, 64 if few else 128, 32)
    blocks = triton.cdiv(C, sizes["BC"])
    span = _span(L, sizes["BT"], _PROGRAMS[few] // blocks, _SHORTEST)
    part = grad.new_empty(triton.cdiv(L, span), C, W)
    _weight_gradient_kernel[blocks, len(part)](
        grad, inner, alpha, part, L, C, len(alpha), W, step, shift, scale, span,
        **sizes, num_warps=4, num_stages=3,
    )  # fmt: skip
    return summed(part), dinner
