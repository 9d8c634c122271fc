"""Kernels of `mechbench.ops.add_norm`: many short rows per program, one pass over memory each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_TILE = 4096  # numbers in a tile of rows
_PROGRAMS = 1024  # programs of the backward: each leaves one row of partial sums


@triton.jit
def _normalised(x, mask, D, eps):
    """Return (x - mean) rstd and rstd of every row."""
    mean = tl.sum(x, 1) / D
    centred = tl.where(mask, x - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 1) / D + eps)
    return centred * rstd[:, None], rstd


@triton.jit(do_not_specialize=["N"])
def _forward_kernel(
    x, delta, weight, bias, total, out, N, D, eps,
    HAS_DELTA: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    mask = (row < N)[:, None] & (column < D)[None, :]
    at = row[:, None] * D + column[None, :]
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_DELTA:
        value += tl.load(delta + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(total + at, value.to(total.dtype.element_ty), mask=mask)
    unit, _ = _normalised(value, mask, D, eps)
    a = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=column < D, other=0.0).to(tl.float32)
    tl.store(out + at, (unit * a[None, :] + b[None, :]).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["N"])
def _backward_kernel(
    total, weight, dout, dtotal, dx, ddelta, part, N, D, eps,
    HAS_DTOTAL: tl.constexpr, HAS_DELTA: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, COLUMNS)
    a = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)
    da = tl.zeros((COLUMNS,), tl.float32)
    db = tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        mask = (row < N)[:, None] & (column < D)[None, :]
        at = row[:, None] * D + column[None, :]
        unit, rstd = _normalised(
            tl.load(total + at, mask=mask, other=0.0).to(tl.float32), mask, D, eps
        )
        grad = tl.load(dout + at, mask=mask, other=0.0).to(tl.float32)
        da += tl.sum(grad * unit, 0)
        db += tl.sum(grad, 0)
        grad *= a[None, :]
        inner = tl.sum(grad * unit, 1)[:, None] * unit + tl.sum(grad, 1)[:, None]
        result = (grad - inner / D) * rstd[:, None]
        if HAS_DTOTAL:
            result += tl.load(dtotal + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx + at, result.to(dx.dtype.element_ty), mask=mask)
        if HAS_DELTA:
            tl.store(ddelta + at, result.to(ddelta.dtype.element_ty), mask=mask)
    out = part + tl.program_id(0).to(tl.int64) * 2 * D + column
    tl.store(out, da, mask=column < D)
    tl.store(out + D, db, mask=column < D)


def _tile(D: int) -> dict[str, int]:
    columns = triton.next_power_of_2(D)
    return {"ROWS": max(1, _TILE // columns), "COLUMNS": columns}


def forward(
    x: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return x + delta, in x's dtype (x itself without delta), and its norm in `dtype`."""
    x = x.contiguous()
    D = x.shape[-1]
    N = x.numel() // D
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    total = x if delta is None else torch.empty_like(x)
    given = x if delta is None else delta.contiguous()
    tile = _tile(D)
    _forward_kernel[(triton.cdiv(N, tile["ROWS"]),)](
        x, given, weight, bias, total, out, N, D, eps, HAS_DELTA=delta is not None, **tile
    )
    return total, out


def backward(
    total: Tensor,
    weight: Tensor,
    dout: Tensor,
    dtotal: Tensor | None,
    delta_dtype: torch.dtype | None,
    eps: float,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Return the gradients of x, delta (None without one), weight and bias."""
    D = total.shape[-1]
    N = total.numel() // D
    dout = dout.contiguous()
    dx = torch.empty_like(total)
    ddelta = None if delta_dtype is None else torch.empty_like(total, dtype=delta_dtype)
    tile = _tile(D)
    programs = min(_PROGRAMS, triton.cdiv(N, tile["ROWS"]))
    part = torch.empty(programs, 2, D, dtype=torch.float32, device=total.device)
    _backward_kernel[(programs,)](
        total, weight, dout, dx if dtotal is None else dtotal.contiguous(), dx,
        dx if ddelta is None else ddelta, part, N, D, eps,
        HAS_DTOTAL=dtotal is not None, HAS_DELTA=ddelta is not None, **tile,
    )  # fmt: skip
    dweight, dbias = summed(part)
    return dx, ddelta, dweight, dbias
