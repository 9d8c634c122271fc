"""What stands around the long convolution of an order-2 Hyena, in four passes over the memory.

From p (B, 3D, L), the projections of v, x^1 and x^2 without their bias, with s(p) the short
convolution of p + in_bias with three taps:

    w = s(p_x1) s(p_v)                    gate_forward
    y = s(p_x2) z~,  z~ = z + skip w      finish_forward, z the convolution of w
    dz = dy s(p_x2)                       finish_backward
    dp, the gradient of everything        gate_backward, dw the convolution's gradient of w

Short convolutions are computed again wherever they are needed: three multiplications cost less
than a pass over the memory. Rows of p may be padded, so that matrix products find them aligned.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TAPS = 3  # of the short convolution; the only number these kernels are written for
_BLOCK = 1024
_SUM_BLOCK, _SUM_SPAN = 512, 4096  # tokens at once and in all of a program that sums gradients
_SUMS = 3 * (TAPS + 2) + 1  # for each group the taps, bias and in_bias; then the skip


@triton.jit
def _at(row, offset, t, L):
    """Return row_t + offset as float32, zero outside [0, L)."""
    inside = (t >= 0) & (t < L)
    return tl.where(inside, tl.load(row + t, mask=inside, other=0.0).to(tl.float32) + offset, 0.0)


@triton.jit
def _taps(taps, bias, shift, c):
    """Return the three taps, the bias and in_bias of channel c."""
    row = taps + 3 * c
    return (
        tl.load(row).to(tl.float32),
        tl.load(row + 1).to(tl.float32),
        tl.load(row + 2).to(tl.float32),
        tl.load(bias + c).to(tl.float32),
        tl.load(shift + c).to(tl.float32),
    )


@triton.jit
def _short(row, taps, bias, shift, c, t, L):
    """Return the short convolution of channel c at times t."""
    a0, a1, a2, b, offset = _taps(taps, bias, shift, c)
    recent = a0 * _at(row, offset, t, L) + a1 * _at(row, offset, t - 1, L)
    return recent + a2 * _at(row, offset, t - 2, L) + b


@triton.jit
def _gate_forward_kernel(p, taps, bias, shift, w, L, stride, D, BLOCK: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    row = p + (b.to(tl.int64) * 3 * D + d) * stride
    v = _short(row, taps, bias, shift, d, t, L)
    x1 = _short(row + D.to(tl.int64) * stride, taps, bias, shift, D + d, t, L)
    out = w + (b.to(tl.int64) * D + d) * L
    tl.store(out + t, (x1 * v).to(w.dtype.element_ty), mask=t < L)


@triton.jit
def _finish_forward_kernel(p, taps, bias, shift, z, w, skip, y, L, stride, D, BLOCK: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    x2_row = p + (b.to(tl.int64) * 3 * D + 2 * D + d) * stride
    x2 = _short(x2_row, taps, bias, shift, 2 * D + d, t, L)
    row = (b.to(tl.int64) * D + d) * L
    total = _at(z + row, 0.0, t, L) + tl.load(skip + d).to(tl.float32) * _at(w + row, 0.0, t, L)
    tl.store(z + row + t, total.to(z.dtype.element_ty), mask=t < L)
    out = y + (b.to(tl.int64) * D + d) * stride
    tl.store(out + t, (x2 * total).to(y.dtype.element_ty), mask=t < L)


@triton.jit
def _finish_backward_kernel(
    p, taps, bias, shift, dy, dz, L, stride, dy_stride, D, BLOCK: tl.constexpr
):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    x2_row = p + (b.to(tl.int64) * 3 * D + 2 * D + d) * stride
    x2 = _short(x2_row, taps, bias, shift, 2 * D + d, t, L)
    row = b.to(tl.int64) * D + d
    grad = _at(dy + row * dy_stride, 0.0, t, L) * x2
    tl.store(dz + row * L + t, grad.to(dz.dtype.element_ty), mask=t < L)


@triton.jit
def _gate_backward_kernel(
    p, taps, bias, shift, skip, dy, total, w, dz, dw, dp, part, L, stride, dy_stride, D,
    BLOCK: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    span, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    step = D.to(tl.int64) * stride
    v_row = p + (b.to(tl.int64) * 3 * D + d) * stride
    x1_row, x2_row = v_row + step, v_row + 2 * step
    row = (b.to(tl.int64) * D + d) * L
    dy_row = dy + (b.to(tl.int64) * D + d) * dy_stride
    out = dp + (b.to(tl.int64) * 3 * D + d) * stride
    weight = tl.load(skip + d).to(tl.float32)
    a0, a1, a2, ab, offset = _taps(taps, bias, shift, d)
    c0, c1, c2, cb, offset1 = _taps(taps, bias, shift, D + d)
    e0, e1, e2, _, offset2 = _taps(taps, bias, shift, 2 * D + d)
    # One sum a lane, see _SUMS: a reduction over the block costs more than all that it sums.
    va0 = tl.zeros((BLOCK,), tl.float32)
    va1, va2, va3, va4 = va0, va0, va0, va0
    xa0, xa1, xa2, xa3, xa4 = va0, va0, va0, va0, va0
    ga0, ga1, ga2, ga3, ga4 = va0, va0, va0, va0, va0
    skips = va0
    for start in range(span * SPAN, tl.minimum(span * SPAN + SPAN, L), BLOCK):
        t = start + tl.arange(0, BLOCK)
        inside = t < L
        dz0 = _at(dz + row, 0.0, t, L)
        dw0 = _at(dw + row, 0.0, t, L) + weight * dz0
        dw1 = _at(dw + row, 0.0, t + 1, L) + weight * _at(dz + row, 0.0, t + 1, L)
        dw2 = _at(dw + row, 0.0, t + 2, L) + weight * _at(dz + row, 0.0, t + 2, L)
        skips += dz0 * _at(w + row, 0.0, t, L)

        # v and x^1 at t, t + 1, t + 2 from p at t - 2 .. t + 2.
        v_2, v_1 = _at(v_row, offset, t - 2, L), _at(v_row, offset, t - 1, L)
        v0 = _at(v_row, offset, t, L)
        v1, v2 = _at(v_row, offset, t + 1, L), _at(v_row, offset, t + 2, L)
        x_2, x_1 = _at(x1_row, offset1, t - 2, L), _at(x1_row, offset1, t - 1, L)
        x0 = _at(x1_row, offset1, t, L)
        x1, x2 = _at(x1_row, offset1, t + 1, L), _at(x1_row, offset1, t + 2, L)
        # Where t + j is beyond L, dw is zero there.
        dv0 = dw0 * (c0 * x0 + c1 * x_1 + c2 * x_2 + cb)
        dv1 = dw1 * (c0 * x1 + c1 * x0 + c2 * x_1 + cb)
        dv2 = dw2 * (c0 * x2 + c1 * x1 + c2 * x0 + cb)
        dpv = a0 * dv0 + a1 * dv1 + a2 * dv2
        va0 += dv0 * v0
        va1 += dv0 * v_1
        va2 += dv0 * v_2
        va3 += dv0
        va4 += tl.where(inside, dpv, 0.0)
        dx0 = dw0 * (a0 * v0 + a1 * v_1 + a2 * v_2 + ab)
        dx1 = dw1 * (a0 * v1 + a1 * v0 + a2 * v_1 + ab)
        dx2 = dw2 * (a0 * v2 + a1 * v1 + a2 * v0 + ab)
        dp1 = c0 * dx0 + c1 * dx1 + c2 * dx2
        xa0 += dx0 * x0
        xa1 += dx0 * x_1
        xa2 += dx0 * x_2
        xa3 += dx0
        xa4 += tl.where(inside, dp1, 0.0)
        dg0 = _at(dy_row, 0.0, t, L) * _at(total + row, 0.0, t, L)
        dg1 = _at(dy_row, 0.0, t + 1, L) * _at(total + row, 0.0, t + 1, L)
        dg2 = _at(dy_row, 0.0, t + 2, L) * _at(total + row, 0.0, t + 2, L)
        dp2 = e0 * dg0 + e1 * dg1 + e2 * dg2
        ga0 += dg0 * _at(x2_row, offset2, t, L)
        ga1 += dg0 * _at(x2_row, offset2, t - 1, L)
        ga2 += dg0 * _at(x2_row, offset2, t - 2, L)
        ga3 += dg0
        ga4 += tl.where(inside, dp2, 0.0)
        tl.store(out + t, dpv.to(dp.dtype.element_ty), mask=inside)
        tl.store(out + step + t, dp1.to(dp.dtype.element_ty), mask=inside)
        tl.store(out + 2 * step + t, dp2.to(dp.dtype.element_ty), mask=inside)
    sums = part + ((span.to(tl.int64) * tl.num_programs(2) + b) * D + d) * 16
    tl.store(sums, tl.sum(va0))
    tl.store(sums + 1, tl.sum(va1))
    tl.store(sums + 2, tl.sum(va2))
    tl.store(sums + 3, tl.sum(va3))
    tl.store(sums + 4, tl.sum(va4))
    tl.store(sums + 5, tl.sum(xa0))
    tl.store(sums + 6, tl.sum(xa1))
    tl.store(sums + 7, tl.sum(xa2))
    tl.store(sums + 8, tl.sum(xa3))
    tl.store(sums + 9, tl.sum(xa4))
    tl.store(sums + 10, tl.sum(ga0))
    tl.store(sums + 11, tl.sum(ga1))
    tl.store(sums + 12, tl.sum(ga2))
    tl.store(sums + 13, tl.sum(ga3))
    tl.store(sums + 14, tl.sum(ga4))
    tl.store(sums + 15, tl.sum(skips))


def _launch(p: Tensor) -> tuple[tuple[int, int, int], int, int, int, int]:
    """Return the grid, L, the stride of p's rows, D and the block."""
    (B, C, L), stride = p.shape, p.stride(1)
    assert p.stride(2) == 1, "rows of p must be contiguous"
    assert B == 1 or p.stride(0) == C * stride, "batches of p must be evenly spaced"
    block = min(_BLOCK, max(16, triton.next_power_of_2(L)))
    return (triton.cdiv(L, block), C // 3, B), L, stride, C // 3, block


def padded_empty(like: Tensor, channels: int) -> Tensor:
    """Return an empty (B, channels, L) with the row stride of `like` (B, C, L)."""
    B, _, L = like.shape
    return like.new_empty(B, channels, like.stride(1))[..., :L]


def gate_forward(p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """Return w (B, D, L) from p (B, 3D, L), taps (3D, 3), bias and shift = in_bias (3D,)."""
    grid, L, stride, D, block = _launch(p)
    w = p.new_empty(len(p), D, L)
    _gate_forward_kernel[grid](p, taps, bias, shift, w, L, stride, D, BLOCK=block)
    return w


def finish_forward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, z: Tensor, w: Tensor, skip: Tensor
) -> Tensor:
    """Return y (B, D, L), rows spaced as those of p; z becomes z~ in place."""
    grid, L, stride, D, block = _launch(p)
    y = padded_empty(p, D)
    _finish_forward_kernel[grid](p, taps, bias, shift, z, w, skip, y, L, stride, D, BLOCK=block)
    return y


def finish_backward(p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, dy: Tensor) -> Tensor:
    """Return dz (B, D, L), contiguous."""
    grid, L, stride, D, block = _launch(p)
    dz = dy.new_empty(dy.shape)
    _finish_backward_kernel[grid](
        p, taps, bias, shift, dy, dz, L, stride, dy.stride(1), D, BLOCK=block
    )
    return dz


def gate_backward(
    p: Tensor,
    taps: Tensor,
    bias: Tensor,
    shift: Tensor,
    skip: Tensor,
    dy: Tensor,
    total: Tensor,
    w: Tensor,
    dz: Tensor,
    dw: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of p, taps, bias, in_bias and skip, all but the first in float32.

    `total` is z~; `dy` may have padded rows, the rest of (B, D, L) is contiguous.
    """
    grid, L, stride, D, block = _launch(p)
    block = min(block, _SUM_BLOCK)
    grid = (triton.cdiv(L, _SUM_SPAN), *grid[1:])
    dp = padded_empty(p, 3 * D)
    part = torch.empty(grid[0], grid[2], D, _SUMS, dtype=torch.float32, device=p.device)
    _gate_backward_kernel[grid](
        p, taps, bias, shift, skip, dy, total, w, dz, dw, dp, part, L, stride, dy.stride(1), D,
        BLOCK=block, SPAN=_SUM_SPAN,
    )  # fmt: skip
    sums = part.sum((0, 1))  # (D, _SUMS)
    groups = sums[:, :-1].view(D, 3, TAPS + 2).transpose(0, 1).reshape(3 * D, TAPS + 2)
    return dp, groups[:, :TAPS], groups[:, TAPS], groups[:, TAPS + 1], sums[:, -1]
