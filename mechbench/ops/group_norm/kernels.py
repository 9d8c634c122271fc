"""Kernels of `mechbench.ops.group_norm`: many heads of tokens per program, a pass each way.

With n = (y - mean(y)) / sqrt(var(y) + eps) and g = dout silu(gate) weight, the gradients are

    dy = (g - mean(g) - n mean(g n)) / sqrt(var(y) + eps)
    dgate = dout (n weight + bias) silu'(gate)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import put, rows
from mechbench.ops.kernels.sums import summed

_TILE = 2048  # numbers in a tile
_PROGRAMS = 512  # programs of a head in the backward: each leaves one row of partial sums


@triton.jit
def _of_head(x, h, D, BLOCK: tl.constexpr):
    c = tl.arange(0, BLOCK)
    return tl.load(x + h * D + c, mask=c < D, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _normed(y, t, N, stride, D, eps, BLOCK: tl.constexpr):
    """Return rows with mean 0 and variance 1, 0 beyond their channels; and the scale."""
    c = tl.arange(0, BLOCK)
    x = rows(y, t, N, stride, D, BLOCK)
    x = tl.where((c < D)[None, :], x - (tl.sum(x, 1) / D)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(x * x, 1) / D + eps)[:, None]
    return x * scale, scale


@triton.jit(do_not_specialize=["N"])
def _forward_kernel(
    y, gate, weight, bias, out, ys, gs, N, E, D, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    t, h = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    first = h * D
    x, _ = _normed(y + first, t, N, ys, D, eps, BLOCK)
    x = x * _of_head(weight, h, D, BLOCK) + _of_head(bias, h, D, BLOCK)
    z = rows(gate + first, t, N, gs, D, BLOCK)
    put(out + first, t, N, E, D, x * z * tl.sigmoid(z), BLOCK)


@triton.jit(do_not_specialize=["N"])
def _backward_kernel(
    y, gate, weight, bias, dout, dy, dgate, part, ys, gs, os, N, E, D, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`part` (programs, 2, E): of the weight and of the bias."""
    h = tl.program_id(1)
    first = h * D
    w, shift = _of_head(weight, h, D, BLOCK), _of_head(bias, h, D, BLOCK)
    of_w, of_shift = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        t = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        x, scale = _normed(y + first, t, N, ys, D, eps, BLOCK)
        z = rows(gate + first, t, N, gs, D, BLOCK)
        grad = rows(dout + first, t, N, os, D, BLOCK)
        share = tl.sigmoid(z)
        slope = share * (1 + z * (1 - share))
        put(dgate + first, t, N, E, D, grad * (x * w + shift) * slope, BLOCK)
        grad *= z * share
        of_shift += tl.sum(grad, 0)
        of_w += tl.sum(grad * x, 0)
        grad *= w
        away = tl.sum(grad, 1)[:, None] + x * tl.sum(grad * x, 1)[:, None]
        put(dy + first, t, N, E, D, scale * (grad - away / D), BLOCK)
    c = tl.arange(0, BLOCK)
    place = part + tl.program_id(0) * 2 * E + first + c
    tl.store(place, of_w, mask=c < D)
    tl.store(place + E, of_shift, mask=c < D)


def _flat(x: Tensor) -> Tensor:
    """Return (B, L, E) as (B L, E), without a copy where its rows are evenly spaced."""
    x = x.flatten(0, 1)
    return x if x.stride(1) == 1 else x.contiguous()


def _tile(D: int) -> dict[str, int]:
    width = triton.next_power_of_2(D)
    return {"ROWS": max(1, _TILE // width), "BLOCK": width}


def forward(
    y: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, n_heads: int, eps: float
) -> Tensor:
    """Return (B, L, E) in gate's dtype, from y and gate of that shape."""
    rows_y, rows_gate = _flat(y), _flat(gate)
    N, E = rows_y.shape
    out = torch.empty(gate.shape, device=y.device, dtype=gate.dtype)
    tile = _tile(E // n_heads)
    _forward_kernel[(triton.cdiv(N, tile["ROWS"]), n_heads)](
        rows_y, rows_gate, weight, bias, out, rows_y.stride(0), rows_gate.stride(0),
        N, E, E // n_heads, eps, **tile,
    )  # fmt: skip
    return out


def backward(
    y: Tensor,
    gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    n_heads: int,
    eps: float,
    dout: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of y and gate, in their dtypes, of weight and bias, float32."""
    flat = [_flat(x) for x in (y, gate, dout)]
    N, E = flat[0].shape
    tile = _tile(E // n_heads)
    programs = min(_PROGRAMS, triton.cdiv(N, tile["ROWS"]))
    dy, dgate = (torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in (y, gate))
    part = torch.empty(programs, 2, E, device=y.device, dtype=torch.float32)
    _backward_kernel[(programs, n_heads)](
        *flat[:2], weight, bias, flat[2], dy, dgate, part, *(x.stride(0) for x in flat),
        N, E, E // n_heads, eps, **tile,
    )  # fmt: skip
    dweight, dbias = summed(part).unbind()
    return dy, dgate, dweight, dbias
