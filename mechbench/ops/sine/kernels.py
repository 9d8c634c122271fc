"""Kernels of `mechbench.ops.sine`: one pass over the features in each direction.

Programs of a layer keep its weight, scaled by its frequencies, and walk over tiles of rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.parts import factor, parts, product_of_parts, transposed_factor
from mechbench.ops.kernels.sums import summed
from mechbench.ops.kernels.waves import cosine, sine
from mechbench.ops.triton import roomy

_TILE = 2048  # numbers in a tile of rows
_PROGRAMS = 1024  # programs of the backward: each leaves one row of partial sums
_LAYER_ROWS = 64  # of a layer's tiles: more would not fit in registers
_LAYER_PROGRAMS = 396, 264  # most programs of its directions: 3 and 2 fit on a multiprocessor


@triton.jit
def _forward_kernel(x, freq, y, N, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    mask = (row < N)[:, None] & (column < W)[None, :]
    at = row[:, None] * W + column[None, :]
    f = tl.load(freq + column, mask=column < W, other=0.0)
    tl.store(y + at, tl.sin(f[None, :] * tl.load(x + at, mask=mask, other=0.0)), mask=mask)


@triton.jit
def _backward_kernel(x, freq, dy, dx, part, N, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    f = tl.load(freq + column, mask=column < W, other=0.0)[None, :]
    df = tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        mask = (row < N)[:, None] & (column < W)[None, :]
        at = row[:, None] * W + column[None, :]
        value = tl.load(x + at, mask=mask, other=0.0)
        slope = tl.cos(f * value) * tl.load(dy + at, mask=mask, other=0.0)
        df += tl.sum(slope * value, 0)
        tl.store(dx + at, slope * f, mask=mask)
    tl.store(part + tl.program_id(0) * W + column, df, mask=column < W)


@triton.jit
def _layer_kernel(
    x, weight, bias, freq, y, N, K, W, ROWS: tl.constexpr, BK: tl.constexpr, BW: tl.constexpr
):  # fmt: skip
    k, w = tl.arange(0, BK), tl.arange(0, BW)
    f = tl.load(freq + w, mask=w < W, other=0.0)
    b = (f * tl.load(bias + w, mask=w < W, other=0.0))[None, :]
    high, low = parts(f[:, None] * factor(weight, w, W, k, K))
    high, low = tl.trans(high), tl.trans(low)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tile * ROWS + tl.arange(0, ROWS)
        a, c = parts(factor(x, row, N, k, K))
        value = sine(product_of_parts(a, c, high, low) + b)
        at = y + row[:, None].to(tl.int64) * W + w[None, :]
        tl.store(at, value, mask=(row < N)[:, None] & (w < W)[None, :])


@triton.jit
def _layer_backward_kernel(
    x, weight, bias, freq, dy, dx, part, N, K, W,
    DX: tl.constexpr, ROWS: tl.constexpr, BK: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """With slopes s = dy cos(f (W x + b)), sums of s and s x^T over rows give all but dx.

    Those of f are the sums of s (W x + b). A tile of x is loaded twice, once transposed, as each is
    the first factor of a product.
    """
    k, w = tl.arange(0, BK), tl.arange(0, BW)
    f = tl.load(freq + w, mask=w < W, other=0.0)
    b = (f * tl.load(bias + w, mask=w < W, other=0.0))[None, :]
    high, low = parts(f[:, None] * factor(weight, w, W, k, K))
    sx = tl.zeros((BK, BW), tl.float32)
    s1 = tl.zeros((BW,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tile * ROWS + tl.arange(0, ROWS)
        a, c = parts(factor(x, row, N, k, K))
        angle = product_of_parts(a, c, tl.trans(high), tl.trans(low)) + b
        slope = cosine(angle) * factor(dy, row, N, w, W)
        s1 += tl.sum(slope, 0)
        d, e = parts(slope)
        if DX:
            da = product_of_parts(d, e, high, low)
            at = dx + row[:, None].to(tl.int64) * K + k[None, :]
            tl.store(at, da, mask=(row < N)[:, None] & (k < K)[None, :])
        a, c = parts(transposed_factor(x, row, N, k, K))
        sx += product_of_parts(a, c, d, e)
    part += tl.program_id(0) * (K + 2) * W
    f = tl.load(freq + w, mask=w < W, other=0.0)
    at = part + w[None, :] * K + k[:, None]
    tl.store(at, sx * f[None, :], mask=(w < W)[None, :] & (k < K)[:, None])
    tl.store(part + K * W + w, s1 * f, mask=w < W)
    df = s1 * tl.load(bias + w, mask=w < W, other=0.0)
    df += tl.sum(sx * transposed_factor(weight, w, W, k, K), 0)
    tl.store(part + (K + 1) * W + w, df, mask=w < W)


def _tile(W: int) -> dict[str, int]:
    columns = triton.next_power_of_2(W)
    return {"ROWS": max(1, _TILE // columns), "COLUMNS": columns}


def forward(x: Tensor, freq: Tensor) -> Tensor:
    """Return sin(freq x), contiguous, for x (..., W) and freq (W,), float32."""
    x = x.contiguous()
    W = x.shape[-1]
    N, tile = x.numel() // W, _tile(W)
    y = torch.empty_like(x)
    _forward_kernel[(triton.cdiv(N, tile["ROWS"]),)](x, freq, y, N, W, **tile)
    return y


def backward(x: Tensor, freq: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and freq."""
    x, dy = x.contiguous(), dy.contiguous()
    W = x.shape[-1]
    N, tile = x.numel() // W, _tile(W)
    programs = min(_PROGRAMS, triton.cdiv(N, tile["ROWS"]))
    dx = torch.empty_like(x)
    part = torch.empty(programs, W, dtype=torch.float32, device=x.device)
    _backward_kernel[(programs,)](x, freq, dy, dx, part, N, W, **tile)
    return dx, summed(part)


def _layer_tile(weight: Tensor, rows: int) -> dict[str, int]:
    BW, BK = (max(16, triton.next_power_of_2(n)) for n in weight.shape)
    return {"ROWS": rows, "BK": BK, "BW": BW}


def layer_forward(x: Tensor, weight: Tensor, bias: Tensor, freq: Tensor) -> Tensor:
    """Return sin(freq (W x + b)) for x (..., K) and weight (W, K), contiguous; all float32."""
    W, K = weight.shape
    N = x.numel() // K
    y = x.new_empty(*x.shape[:-1], W)
    programs = min(_LAYER_PROGRAMS[0], triton.cdiv(N, _LAYER_ROWS))
    _layer_kernel[(programs,)](
        x, weight, bias, freq, y, N, K, W,
        **_layer_tile(weight, _LAYER_ROWS), num_warps=4, num_stages=2,
    )  # fmt: skip
    return y


def layer_backward(
    x: Tensor, weight: Tensor, bias: Tensor, freq: Tensor, dy: Tensor, wants_dx: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Return the gradients of x if wanted, weight, bias and freq."""
    W, K = weight.shape
    N = x.numel() // K
    dx = torch.empty_like(x) if wants_dx else None
    rows = _LAYER_ROWS if roomy(x.device) else _LAYER_ROWS // 2
    programs = min(_LAYER_PROGRAMS[1], triton.cdiv(N, rows))
    part = torch.empty(programs, (K + 2) * W, dtype=torch.float32, device=x.device)
    _layer_backward_kernel[(programs,)](
        x, weight, bias, freq, dy, x if dx is None else dx, part, N, K, W,
        DX=wants_dx, **_layer_tile(weight, rows), num_warps=4, num_stages=1,
    )  # fmt: skip
    dweight, dbias, dfreq = summed(part).split([K * W, W, W])
    return dx, dweight.view(W, K), dbias, dfreq
