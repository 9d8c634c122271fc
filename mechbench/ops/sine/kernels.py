"""Kernels of `mechbench.ops.sine`: one pass over the features in each direction."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_TILE = 2048  # numbers in a tile of rows
_PROGRAMS = 1024  # programs of the backward: each leaves one row of partial sums


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
