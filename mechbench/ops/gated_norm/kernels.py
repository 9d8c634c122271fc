"""Kernels of `mechbench.ops.gated_norm`: many short rows per program, one pass over memory each.

With n = y / sqrt(mean(y^2) + eps) and a = dout weight silu(gate), the gradients are

    dy = (a - n mean(a n)) / sqrt(mean(y^2) + eps),   dgate = dout weight n silu'(gate)
    dweight = sum dout silu(gate) n
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_TILE = 2048  # numbers in a tile of rows
_PROGRAMS = 1024  # programs of the backward: each leaves one row of partial sums


@triton.jit
def _loaded(base, at, mask):
    return tl.load(base + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _gate_at(row, column, H, D, stride):
    """Return where the gates of rows (token, head) lie."""
    return (row // H)[:, None] * stride + (row % H)[:, None] * D + column[None, :]


@triton.jit
def _forward_kernel(
    y, gate, weight, out, N, H, D, stride, eps, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    mask = (row < N)[:, None] & (column < D)[None, :]
    at = row[:, None] * D + column[None, :]
    x, z = _loaded(y, at, mask), _loaded(gate, _gate_at(row, column, H, D, stride), mask)
    scale = _loaded(weight, column, column < D)[None, :]
    rstd = 1 / tl.sqrt(tl.sum(x * x, 1) / D + eps)
    result = x * rstd[:, None] * scale * z * tl.sigmoid(z)
    tl.store(out + at, result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _backward_kernel(
    y, gate, weight, dout, dy, dgate, part, N, H, D, stride, eps,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, COLUMNS)
    scale = _loaded(weight, column, column < D)[None, :]
    d_scale = tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        mask = (row < N)[:, None] & (column < D)[None, :]
        at = row[:, None] * D + column[None, :]
        x, z = _loaded(y, at, mask), _loaded(gate, _gate_at(row, column, H, D, stride), mask)
        grad = _loaded(dout, at, mask)
        rstd = 1 / tl.sqrt(tl.sum(x * x, 1) / D + eps)[:, None]
        unit = x * rstd
        share = tl.sigmoid(z)
        d_scale += tl.sum(grad * unit * z * share, 0)
        grad *= scale
        d_gate = grad * unit * share * (1 + z * (1 - share))
        tl.store(dgate + at, d_gate.to(dgate.dtype.element_ty), mask=mask)
        grad *= z * share
        d_x = (grad - unit * (tl.sum(grad * unit, 1) / D)[:, None]) * rstd
        tl.store(dy + at, d_x.to(dy.dtype.element_ty), mask=mask)
    tl.store(part + tl.program_id(0) * D + column, d_scale, mask=column < D)


def tokens(x: Tensor) -> Tensor:
    """Return x (B, L, D), copied unless one stride leads from each token to the next."""
    B, L, _ = x.shape
    even = B == 1 or x.stride(0) == L * x.stride(1)
    return x if even and x.stride(2) == 1 else x.contiguous()


def _tile(D: int) -> dict[str, int]:
    columns = triton.next_power_of_2(D)
    return {"ROWS": max(1, _TILE // columns), "COLUMNS": columns}


def forward(y: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return (B, L, H d) in gate's dtype for y (B, L, H, d), contiguous, and gate from `tokens`."""
    B, L, H, D = y.shape
    out = torch.empty(gate.shape, device=y.device, dtype=gate.dtype)
    tile = _tile(D)
    _forward_kernel[(triton.cdiv(B * L * H, tile["ROWS"]),)](
        y, gate, weight, out, B * L * H, H, D, gate.stride(1), eps, **tile
    )
    return out


def backward(
    y: Tensor, gate: Tensor, weight: Tensor, dout: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of y and gate, in their dtypes, and of weight, float32."""
    B, L, H, D = y.shape
    tile = _tile(D)
    programs = min(_PROGRAMS, triton.cdiv(B * L * H, tile["ROWS"]))
    part = torch.empty(programs, D, device=y.device, dtype=torch.float32)
    dy, dgate = torch.empty_like(y), torch.empty(gate.shape, device=y.device, dtype=gate.dtype)
    _backward_kernel[(programs,)](
        y, gate, weight, dout, dy, dgate, part, B * L * H, H, D, gate.stride(1), eps, **tile
    )
    return dy, dgate, summed(part)
