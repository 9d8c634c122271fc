"""What transforms of n tokens leave out of a convolution of n + R: a corner at either end of it.

Outputs from n on are imaginary parts of such transforms (`cuda/real.cuh`), as far as their inputs
and lags are below n. Here is the rest, R (R + 1) products a row.
"""

from __future__ import annotations

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
def _output_kernel(v, h, z, batch, channel, L, K, n, D, R: tl.constexpr, BLOCK: tl.constexpr):
    d, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    live = d < D
    taps, row = h + d.to(tl.int64) * K, v + b * batch + d.to(tl.int64) * channel
    out = z + (b * D + d) * L + n
    for t in tl.static_range(R):
        total = _at(out, t, R, live)
        for s in tl.static_range(t + 1):
            total += _at(taps, t - s, K, live) * _at(row, n + s, L, live)
            total += _at(taps, n + t - s, K, live) * _at(row, s, L, live)
        tl.store(out + t, total.to(z.dtype.element_ty), mask=live)


@triton.jit
def _input_kernel(dz, h, dv, batch, channel, L, K, n, D, R: tl.constexpr, BLOCK: tl.constexpr):
    d, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    live = d < D
    taps, row = h + d.to(tl.int64) * K, dz + b * batch + d.to(tl.int64) * channel
    out = dv + (b * D + d) * L
    for s in tl.static_range(R):
        early = _at(out, s, L, live)
        late = tl.zeros_like(early)
        for t in tl.static_range(s, R):
            grad = _at(row, n + t, L, live)
            early += _at(taps, n + t - s, K, live) * grad
            late += _at(taps, t - s, K, live) * grad
        tl.store(out + s, early.to(dv.dtype.element_ty), mask=live)
        tl.store(out + n + s, late.to(dv.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["B"])
def _tap_kernel(
    dz, v, dh, batch, channel, v_batch, v_channel, B, L, K, n, D,
    R: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    out, column = dh + d.to(tl.int64) * K, d[None, :].to(tl.int64)
    for k in tl.static_range(R):
        early = tl.zeros((BLOCK,), tl.float32)
        late = tl.zeros((BLOCK,), tl.float32)
        for first in range(0, B, ROWS):
            b = first + tl.arange(0, ROWS)[:, None].to(tl.int64)
            live = (b < B) & (d < D)[None, :]
            grads = dz + b * batch + column * channel
            row = v + b * v_batch + column * v_channel
            for s in tl.static_range(R - k):
                grad = _at(grads, n + s + k, L, live)
                early += tl.sum(grad * _at(row, n + s, L, live), 0)
                late += tl.sum(grad * _at(row, s, L, live), 0)
        early += _at(out, k, K, d < D)
        tl.store(out + k, early, mask=(d < D) & (k < K))
        tl.store(out + n + k, late, mask=(d < D) & (n + k < K))


def add_late_outputs(v: Tensor, h: Tensor, z: Tensor, n: int) -> None:
    """Complete z[..., n:] of the convolution of v (B, D, L) with h (D, K), in place.

    v may have any strides but the last, h and z are contiguous.
    """
    (B, D, L), K = v.shape, h.shape[1]
    grid = triton.cdiv(D, _CHANNELS), B
    _output_kernel[grid](v, h, z, *v.stride()[:2], L, K, n, D, R=L - n, BLOCK=_CHANNELS)


def add_late_gradients(dz: Tensor, v: Tensor, h: Tensor, dv: Tensor, dh: Tensor, n: int) -> None:
    """Complete dv (B, D, L) and dh (D, K), float32, in place: they lack the same corners."""
    (B, D, L), K = v.shape, h.shape[1]
    grid = triton.cdiv(D, _CHANNELS), B
    _input_kernel[grid](dz, h, dv, *dz.stride()[:2], L, K, n, D, R=L - n, BLOCK=_CHANNELS)
    _tap_kernel[(triton.cdiv(D, _SUM_CHANNELS),)](
        dz, v, dh, *dz.stride()[:2], *v.stride()[:2], B, L, K, n, D,
        R=L - n, ROWS=_SUM_ROWS, BLOCK=_SUM_CHANNELS,
    )  # fmt: skip
