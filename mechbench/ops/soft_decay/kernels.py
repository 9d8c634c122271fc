"""Kernels of `mechbench.ops.soft_decay`, a pass each way, tokens first.

With r = exp(log_rate) and s = sigmoid(logit + bias): dlogit = (dstep - r dfall) s, whose sum is
that of the bias; that of log_rate is the sum of dfall times the log decay.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_TILE, _COLUMNS = 2048, 64  # numbers in a tile, and most of its columns
_PROGRAMS = 512  # programs of the backward along the rows: each leaves sums


@triton.jit
def _softplus(x):
    """Return log(1 + exp(x)), as exact where exp(x) is far below 1."""
    power = tl.exp(tl.minimum(x, 20.0))
    total = 1 + power
    exact = tl.where(total == 1, power, tl.log(total) * (power / (total - 1 + (total == 1))))
    return tl.where(x > 20, x, exact)


@triton.jit
def _loaded(logits, bias, log_rate, row, column, mask, stride, E, K):
    """Return logits + bias, and rates."""
    x = tl.load(logits + row[:, None] * stride + column[None, :], mask=mask, other=0.0)
    shift = tl.load(bias + column, mask=column < E, other=0.0).to(tl.float32)
    rate = tl.exp(tl.load(log_rate + column // K, mask=column < E, other=0.0).to(tl.float32))
    return x.to(tl.float32) + shift[None, :], rate[None, :]


@triton.jit(do_not_specialize=["N"])
def _forward_kernel(
    logits, bias, log_rate, steps, falls, N, E, K, stride,
    STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (row < N)[:, None] & (column < E)[None, :]
    x, rate = _loaded(logits, bias, log_rate, row, column, mask, stride, E, K)
    step = _softplus(x)
    at = row[:, None] * E + column[None, :]
    if STEPS:
        tl.store(steps + at, step, mask=mask)
    tl.store(falls + at, -rate * step, mask=mask)


@triton.jit(do_not_specialize=["N", "L"])
def _backward_kernel(
    logits, bias, log_rate, dsteps, dfalls, dlogits, part,
    sb, st, sc, fb, ft, fc, N, L, E, K, stride,
    HAS_STEPS: tl.constexpr, HAS_FALLS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`part` (programs, 2, E): of the bias, and of log_rate before channels are added."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    of_bias, of_rate = tl.zeros((COLUMNS,), tl.float32), tl.zeros((COLUMNS,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        b, t = (row // L)[:, None], (row % L)[:, None]
        mask = (row < N)[:, None] & (column < E)[None, :]
        x, rate = _loaded(logits, bias, log_rate, row, column, mask, stride, E, K)
        grad = tl.zeros((ROWS, COLUMNS), tl.float32)
        if HAS_STEPS:
            at = b * sb + t * st + column[None, :] * sc
            grad += tl.load(dsteps + at, mask=mask, other=0.0).to(tl.float32)
        if HAS_FALLS:
            at = b * fb + t * ft + column[None, :] * fc
            fall = rate * tl.load(dfalls + at, mask=mask, other=0.0).to(tl.float32)
            grad -= fall
            of_rate -= tl.sum(fall * _softplus(x), 0)
        grad *= tl.sigmoid(x)
        of_bias += tl.sum(grad, 0)
        place = dlogits + row[:, None] * E + column[None, :]
        tl.store(place, grad.to(dlogits.dtype.element_ty), mask=mask)
    place = part + tl.program_id(0) * 2 * E + column
    tl.store(place, of_bias, mask=column < E)
    tl.store(place + E, of_rate, mask=column < E)


def _tile(E: int) -> tuple[int, int]:
    columns = min(_COLUMNS, triton.next_power_of_2(E))
    return _TILE // columns, columns


def _flat(x: Tensor) -> Tensor:
    """Return (B, L, E) as (B L, E), without a copy where its rows are evenly spaced."""
    x = x.flatten(0, 1)
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def forward(logits: Tensor, bias: Tensor, log_rate: Tensor, steps: bool) -> tuple[Tensor, Tensor]:
    """Return steps (left empty unless wanted) and log decays, (B, L, E), float32."""
    flat, (B, L, E) = _flat(logits), logits.shape
    now, falls = (torch.empty(B, L, E, device=flat.device, dtype=torch.float32) for _ in range(2))
    rows, columns = _tile(E)
    _forward_kernel[(triton.cdiv(B * L, rows), triton.cdiv(E, columns))](
        flat, bias.contiguous(), log_rate.contiguous(), now, falls, B * L, E, E // len(log_rate),
        flat.stride(0), STEPS=steps, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return now, falls


def backward(
    logits: Tensor, bias: Tensor, log_rate: Tensor, dsteps: Tensor | None, dfalls: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of logits, in their dtype, bias and log_rate, float32."""
    flat, (B, L, E), H = _flat(logits), logits.shape, len(log_rate)
    rows, columns = _tile(E)
    programs = min(_PROGRAMS, triton.cdiv(B * L, rows))
    dlogits = torch.empty(B, L, E, device=flat.device, dtype=logits.dtype)
    part = torch.empty(programs, 2, E, device=flat.device, dtype=torch.float32)
    grads = [flat if x is None else x for x in (dsteps, dfalls)]
    strides = [s for x in (dsteps, dfalls) for s in ((0, 0, 0) if x is None else x.stride())]
    _backward_kernel[(programs, triton.cdiv(E, columns))](
        flat, bias.contiguous(), log_rate.contiguous(), *grads, dlogits, part, *strides,
        B * L, L, E, E // H, flat.stride(0),
        HAS_STEPS=dsteps is not None, HAS_FALLS=dfalls is not None, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    dbias, drate = summed(part).unbind()
    return dlogits, dbias, drate if E == H else drate.view(H, -1).sum(1)
