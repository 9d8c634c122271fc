"""Kernels of `mechbench.ops.gated_norm`: many short rows per program, one pass over memory each.

With n = y / sqrt(mean(y^2) + eps) and a = dout weight act(gate), the gradients are

    dy = (a - n mean(a n)) / sqrt(mean(y^2) + eps),   dgate = dout weight n act'(gate)
    dweight = sum dout act(gate) n

Where the gate comes before the norm, y act(gate) takes the place of y, and dout weight that of a.
"""

from __future__ import annotations

from typing import NamedTuple

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
def _act(z, SILU: tl.constexpr):
    """Return act(z) and its slope, silu or the sigmoid."""
    share = tl.sigmoid(z)
    if SILU:
        return z * share, share * (1 + z * (1 - share))
    return share, share * (1 - share)


@triton.jit
def _forward_kernel(
    y, gate, weight, out, N, H, D, stride, eps,
    PLACE: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gate comes behind the norm (PLACE 1), before it (2), or there is none (0)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    mask = (row < N)[:, None] & (column < D)[None, :]
    at = row[:, None] * D + column[None, :]
    x = _loaded(y, at, mask)
    scale = _loaded(weight, column, column < D)[None, :]
    if PLACE != 0:
        share, _ = _act(_loaded(gate, _gate_at(row, column, H, D, stride), mask), SILU)
        if PLACE == 2:
            x *= share
        else:
            scale = scale * share
    rstd = 1 / tl.sqrt(tl.sum(x * x, 1) / D + eps)
    tl.store(out + at, (x * rstd[:, None] * scale).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _backward_kernel(
    y, gate, weight, dout, dy, dgate, part, N, H, D, stride, eps,
    PLACE: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, COLUMNS)
    scale = _loaded(weight, column, column < D)[None, :]
    d_scale = tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        mask = (row < N)[:, None] & (column < D)[None, :]
        at = row[:, None] * D + column[None, :]
        x, grad = _loaded(y, at, mask), _loaded(dout, at, mask)
        if PLACE != 0:
            z = _loaded(gate, _gate_at(row, column, H, D, stride), mask)
            share, slope = _act(z, SILU)
        value = x
        if PLACE == 2:
            value = x * share
        rstd = 1 / tl.sqrt(tl.sum(value * value, 1) / D + eps)[:, None]
        unit = value * rstd
        if PLACE == 1:
            tl.store(dgate + at, (grad * unit * scale * slope).to(dgate.dtype.element_ty), mask)
            grad *= share
        d_scale += tl.sum(grad * unit, 0)
        grad *= scale
        d_x = (grad - unit * (tl.sum(grad * unit, 1) / D)[:, None]) * rstd
        if PLACE == 2:
            tl.store(dgate + at, (d_x * x * slope).to(dgate.dtype.element_ty), mask)
            d_x *= share
        tl.store(dy + at, d_x.to(dy.dtype.element_ty), mask=mask)
    tl.store(part + tl.program_id(0) * D + column, d_scale, mask=column < D)


class Form(NamedTuple):
    """Where the gate comes, behind the norm (1), before it (2) or not at all (0), and its act."""

    place: int
    silu: bool = True


def tokens(x: Tensor) -> Tensor:
    """Return x (B, L, D), copied unless one stride leads from each token to the next."""
    B, L, _ = x.shape
    even = B == 1 or x.stride(0) == L * x.stride(1)
    return x if even and x.stride(2) == 1 else x.contiguous()


def _constants(D: int, form: Form) -> dict[str, int | bool]:
    columns = triton.next_power_of_2(D)
    rows = max(1, _TILE // columns)
    return {"PLACE": form.place, "SILU": form.silu, "ROWS": rows, "COLUMNS": columns}


def _stride(gate: Tensor | None) -> int:
    return 0 if gate is None else gate.stride(1)


def forward(
    y: Tensor, gate: Tensor | None, weight: Tensor, eps: float, form: Form, dtype: torch.dtype
) -> Tensor:
    """Return (B, L, H d) in `dtype` for y (B, L, H, d), contiguous, and gate from `tokens`."""
    B, L, H, D = y.shape
    out = torch.empty(B, L, H * D, device=y.device, dtype=dtype)
    constants = _constants(D, form)
    _forward_kernel[(triton.cdiv(B * L * H, int(constants["ROWS"])),)](
        y, y if gate is None else gate, weight, out, B * L * H, H, D, _stride(gate), eps,
        **constants,
    )  # fmt: skip
    return out


def backward(
    y: Tensor, gate: Tensor | None, weight: Tensor, dout: Tensor, eps: float, form: Form
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the gradients of y and gate, in their dtypes, and of weight, float32."""
    B, L, H, D = y.shape
    constants = _constants(D, form)
    programs = min(_PROGRAMS, triton.cdiv(B * L * H, int(constants["ROWS"])))
    part = torch.empty(programs, D, device=y.device, dtype=torch.float32)
    dy = torch.empty_like(y)
    dgate = None if gate is None else torch.empty(gate.shape, device=y.device, dtype=gate.dtype)
    _backward_kernel[(programs,)](
        y, y if gate is None else gate, weight, dout, dy, dy if dgate is None else dgate, part,
        B * L * H, H, D, _stride(gate), eps, **constants,
    )  # fmt: skip
    return dy, dgate, summed(part)
