"""What transforms of n tokens leave out of a convolution of n + R: a corner at either end of it.

Outputs from n on are imaginary parts of such transforms (`cuda/real.cuh`), as far as their inputs
and lags are below n. Here is the rest, R (R + 1) products a row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

_CHANNELS = 64  # a program
_SUM_CHANNELS, _SUM_ROWS = 8, 32  # of a program that sums over the batch, at once


@triton.jit
def _at(row, i, n, live):
    """Load number i of each row, zero from n on."""
    return tl.load(row + i, mask=live & (i < n), other=0.0).to(tl.float32)


@triton.jit
def _rows(x, batch, channel, b, d):
    """Return where rows of x (B, D, ..) begin."""
    return x + b * batch + d * channel


@triton.jit
def _output_kernel(
    early, late, taps, z, eb, ed, lb, ld, zb, zd, D, R: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    d = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    b = tl.program_id(1).to(tl.int64)
    live = d < D
    early, late = _rows(early, eb, ed, b, d), _rows(late, lb, ld, b, d)
    taps, out = taps + d * 2 * R, _rows(z, zb, zd, b, d)
    for t in tl.static_range(R):
        total = _at(out, t, R, live)
        for s in tl.static_range(t + 1):
            total += _at(taps, t - s, R, live) * _at(late, s, R, live)
            total += _at(taps, R + t - s, 2 * R, live) * _at(early, s, R, live)
        tl.store(out + t, total.to(z.dtype.element_ty), mask=live)


@triton.jit
def _input_kernel(
    grads, taps, dv, gb, gd, vb, vd, n, D, R: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    d = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    b = tl.program_id(1).to(tl.int64)
    live = d < D
    taps, row, out = taps + d * 2 * R, _rows(grads, gb, gd, b, d), _rows(dv, vb, vd, b, d)
    for s in tl.static_range(R):
        early = _at(out, s, R, live)
        late = tl.zeros_like(early)
        for t in tl.static_range(s, R):
            grad = _at(row, t, R, live)
            early += _at(taps, R + t - s, 2 * R, live) * grad
            late += _at(taps, t - s, R, live) * grad
        tl.store(out + s, early.to(dv.dtype.element_ty), mask=live)
        tl.store(out + n + s, late.to(dv.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["B"])
def _tap_kernel(
    grads, early, late, dh, gb, gd, eb, ed, lb, ld, B, K, n, D,
    R: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    d = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    out, column = dh + d * K, d[None, :]
    for k in tl.static_range(R):
        first = tl.zeros((BLOCK,), tl.float32)
        last = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, B, ROWS):
            b = start + tl.arange(0, ROWS)[:, None].to(tl.int64)
            live = (b < B) & (column < D)
            for s in tl.static_range(R - k):
                grad = _at(_rows(grads, gb, gd, b, column), s + k, R, live)
                first += tl.sum(grad * _at(_rows(late, lb, ld, b, column), s, R, live), 0)
                last += tl.sum(grad * _at(_rows(early, eb, ed, b, column), s, R, live), 0)
        first += _at(out, k, K, d < D)
        tl.store(out + k, first, mask=(d < D) & (k < K))
        tl.store(out + n + k, last, mask=(d < D) & (n + k < K))


def corner_taps(h: Tensor, n: int, R: int) -> Tensor:
    """Return the taps (D, 2 R) of filters h (D, K) that the corners take: from 0 and from n on."""
    ends = (h[:, start : start + R] for start in (0, n))
    return torch.cat([F.pad(x, (0, R - x.shape[1])) for x in ends], 1)


def add_late_outputs(early: Tensor, late: Tensor, taps: Tensor, z: Tensor) -> None:
    """Complete outputs z (B, D, R) from n on, in place.

    Args:
        early: (B, D, R or more), inputs from 0 on; only the last axis must have stride 1.
        late: (B, D, R), inputs from n on; strides likewise.
        taps: from `corner_taps`.
        z: what transforms gave; strides likewise.
    """
    B, D, R = z.shape
    _output_kernel[triton.cdiv(D, _CHANNELS), B](
        early, late, taps, z, *early.stride()[:2], *late.stride()[:2], *z.stride()[:2], D,
        R=R, BLOCK=_CHANNELS,
    )  # fmt: skip


def add_late_gradients(
    grads: Tensor, early: Tensor, late: Tensor, taps: Tensor, dv: Tensor, dh: Tensor, n: int
) -> None:
    """Complete dv (B, D, n + R or more) and dh (D, K), float32, in place.

    Args:
        grads: (B, D, R), those of the outputs from n on.
        early: as for `add_late_outputs`, and so are late and taps.
        late: see there.
        taps: see there.
        dv: what transforms gave.
        dh: likewise, contiguous.
        n: their length.
    """
    B, D, R = grads.shape
    strides = grads.stride()[:2]
    _input_kernel[triton.cdiv(D, _CHANNELS), B](
        grads, taps, dv, *strides, *dv.stride()[:2], n, D, R=R, BLOCK=_CHANNELS
    )
    _tap_kernel[(triton.cdiv(D, _SUM_CHANNELS),)](
        grads, early, late, dh, *strides, *early.stride()[:2], *late.stride()[:2],
        B, dh.shape[1], n, D, R=R, ROWS=_SUM_ROWS, BLOCK=_SUM_CHANNELS,
    )  # fmt: skip
