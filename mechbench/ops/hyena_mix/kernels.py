"""Everything around the long convolution of an order-2 Hyena, in four passes over memory.

From p (B, 3D, L), the projections of v, x^1 and x^2 without their bias, with s(p) the short
convolution of p + in_bias with three taps:

    w = s(p_x1) s(p_v)                    gate_forward
    y = s(p_x2) z~,  z~ = z + skip w      finish_forward, z the convolution of w
    dz = dy s(p_x2)                       finish_backward
    dp, the gradient of everything        gate_backward, dw the convolution's gradient of w

Short convolutions are recomputed wherever they are needed: three multiplications cost less than a
pass over memory. Rows of p may be padded, so that they are aligned for matrix products.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

TAPS = 3  # taps of the short convolution; the only number these kernels support
_BLOCK = 512
_SUM_BLOCK, _SUM_SPAN = 128, 4096  # tokens per step and in total of a program that sums gradients
_SUMS = 3 * (TAPS + 2) + 1  # taps, bias and in_bias of each group; then the skip


@triton.jit
def _at(row, offset, t, L, MASKED: tl.constexpr = True):
    """Return row_t + offset as float32, zero outside [0, L) unless t is known to be inside."""
    if not MASKED:
        return tl.load(row + t).to(tl.float32) + offset
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
def _gate_forward_kernel(p, taps, bias, shift, w, L, width, stride, D, BLOCK: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    row = p + (b.to(tl.int64) * 3 * D + d) * stride
    v = _short(row, taps, bias, shift, d, t, L)
    x1 = _short(row + D.to(tl.int64) * stride, taps, bias, shift, D + d, t, L)
    out = w + (b.to(tl.int64) * D + d) * width
    result = tl.where(t < L, x1 * v, 0.0)
    tl.store(out + t, result.to(w.dtype.element_ty), mask=t < width)


@triton.jit
def _finish_forward_kernel(
    p, taps, bias, shift, z, w, skip, y, L, width, stride, D, BLOCK: tl.constexpr
):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    x2_row = p + (b.to(tl.int64) * 3 * D + 2 * D + d) * stride
    x2 = _short(x2_row, taps, bias, shift, 2 * D + d, t, L)
    row = (b.to(tl.int64) * D + d) * width
    total = _at(z + row, 0.0, t, L) + tl.load(skip + d).to(tl.float32) * _at(w + row, 0.0, t, L)
    tl.store(z + row + t, total.to(z.dtype.element_ty), mask=t < L)
    out = y + (b.to(tl.int64) * D + d) * stride
    tl.store(out + t, (x2 * total).to(y.dtype.element_ty), mask=t < L)


@triton.jit
def _finish_backward_kernel(
    p, taps, bias, shift, dy, dz, L, width, stride, dy_stride, D, BLOCK: tl.constexpr
):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    x2_row = p + (b.to(tl.int64) * 3 * D + 2 * D + d) * stride
    x2 = _short(x2_row, taps, bias, shift, 2 * D + d, t, L)
    row = b.to(tl.int64) * D + d
    grad = _at(dy + row * dy_stride, 0.0, t, L) * x2
    # Beyond L, `_at` gave zeros.
    tl.store(dz + row * width + t, grad.to(dz.dtype.element_ty), mask=t < width)


@triton.jit
def _gate_backward_tile(
    v_row, x1_row, x2_row, dy, total, w, dz, dw, out, step, weight,
    a0, a1, a2, ab, va, c0, c1, c2, cb, xa, e0, e1, e2, ga, t, L, MASKED: tl.constexpr,
):  # fmt: skip
    """Store dp at t; return what its tokens add to the _SUMS. va, xa and ga are in_bias."""
    inside = t < L
    dz0 = _at(dz, 0.0, t, L, MASKED)
    dw0 = _at(dw, 0.0, t, L, MASKED) + weight * dz0
    dw1 = _at(dw, 0.0, t + 1, L, MASKED) + weight * _at(dz, 0.0, t + 1, L, MASKED)
    dw2 = _at(dw, 0.0, t + 2, L, MASKED) + weight * _at(dz, 0.0, t + 2, L, MASKED)
    skip = dz0 * _at(w, 0.0, t, L, MASKED)
    # v and x^1 at t, t + 1, t + 2 from p at t - 2 .. t + 2; beyond L, dw is zero.
    v_2, v_1 = _at(v_row, va, t - 2, L, MASKED), _at(v_row, va, t - 1, L, MASKED)
    v0 = _at(v_row, va, t, L, MASKED)
    v1, v2 = _at(v_row, va, t + 1, L, MASKED), _at(v_row, va, t + 2, L, MASKED)
    x_2, x_1 = _at(x1_row, xa, t - 2, L, MASKED), _at(x1_row, xa, t - 1, L, MASKED)
    x0 = _at(x1_row, xa, t, L, MASKED)
    x1, x2 = _at(x1_row, xa, t + 1, L, MASKED), _at(x1_row, xa, t + 2, L, MASKED)
    dv0 = dw0 * (c0 * x0 + c1 * x_1 + c2 * x_2 + cb)
    dv1 = dw1 * (c0 * x1 + c1 * x0 + c2 * x_1 + cb)
    dv2 = dw2 * (c0 * x2 + c1 * x1 + c2 * x0 + cb)
    dpv = a0 * dv0 + a1 * dv1 + a2 * dv2
    dx0 = dw0 * (a0 * v0 + a1 * v_1 + a2 * v_2 + ab)
    dx1 = dw1 * (a0 * v1 + a1 * v0 + a2 * v_1 + ab)
    dx2 = dw2 * (a0 * v2 + a1 * v1 + a2 * v0 + ab)
    dpx = c0 * dx0 + c1 * dx1 + c2 * dx2
    dg0 = _at(dy, 0.0, t, L, MASKED) * _at(total, 0.0, t, L, MASKED)
    dg1 = _at(dy, 0.0, t + 1, L, MASKED) * _at(total, 0.0, t + 1, L, MASKED)
    dg2 = _at(dy, 0.0, t + 2, L, MASKED) * _at(total, 0.0, t + 2, L, MASKED)
    dpg = e0 * dg0 + e1 * dg1 + e2 * dg2
    g0, g_1 = _at(x2_row, ga, t, L, MASKED), _at(x2_row, ga, t - 1, L, MASKED)
    g_2 = _at(x2_row, ga, t - 2, L, MASKED)
    tl.store(out + t, dpv.to(out.dtype.element_ty), mask=inside)
    tl.store(out + step + t, dpx.to(out.dtype.element_ty), mask=inside)
    tl.store(out + 2 * step + t, dpg.to(out.dtype.element_ty), mask=inside)
    dpv, dpx = tl.where(inside, dpv, 0.0), tl.where(inside, dpx, 0.0)
    dpg = tl.where(inside, dpg, 0.0)
    return (
        dv0 * v0, dv0 * v_1, dv0 * v_2, dv0, dpv, dx0 * x0, dx0 * x_1, dx0 * x_2, dx0, dpx,
        dg0 * g0, dg0 * g_1, dg0 * g_2, dg0, dpg, skip,
    )  # fmt: skip


@triton.jit
def _gate_backward_kernel(
    p, taps, bias, shift, skip, dy, total, w, dz, dw, dp, part, L, width, stride, dy_stride, D,
    BLOCK: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    span, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    step = D.to(tl.int64) * stride
    v_row = p + (b.to(tl.int64) * 3 * D + d) * stride
    x1_row, x2_row = v_row + step, v_row + 2 * step
    row = (b.to(tl.int64) * D + d) * width
    dy_row = dy + (b.to(tl.int64) * D + d) * dy_stride
    out = dp + (b.to(tl.int64) * 3 * D + d) * stride
    weight = tl.load(skip + d).to(tl.float32)
    a0, a1, a2, ab, va = _taps(taps, bias, shift, d)
    c0, c1, c2, cb, xa = _taps(taps, bias, shift, D + d)
    e0, e1, e2, _, ga = _taps(taps, bias, shift, 2 * D + d)
    # One sum per lane, reduced once at the end: reducing every block would cost more than the sums.
    s0 = tl.zeros((BLOCK,), tl.float32)
    s1, s2, s3, s4, s5, s6, s7, s8 = s0, s0, s0, s0, s0, s0, s0, s0
    s9, s10, s11, s12, s13, s14, s15 = s0, s0, s0, s0, s0, s0, s0
    for start in range(span * SPAN, tl.minimum(span * SPAN + SPAN, L), BLOCK):
        t = start + tl.arange(0, BLOCK)
        if (start >= 2) & (start + BLOCK + 2 <= L):
            r = _gate_backward_tile(
                v_row, x1_row, x2_row, dy_row, total + row, w + row, dz + row, dw + row, out, step,
                weight, a0, a1, a2, ab, va, c0, c1, c2, cb, xa, e0, e1, e2, ga, t, L, False,
            )  # fmt: skip
        else:
            r = _gate_backward_tile(
                v_row, x1_row, x2_row, dy_row, total + row, w + row, dz + row, dw + row, out, step,
                weight, a0, a1, a2, ab, va, c0, c1, c2, cb, xa, e0, e1, e2, ga, t, L, True,
            )  # fmt: skip
        s0, s1, s2, s3 = s0 + r[0], s1 + r[1], s2 + r[2], s3 + r[3]
        s4, s5, s6, s7 = s4 + r[4], s5 + r[5], s6 + r[6], s7 + r[7]
        s8, s9, s10, s11 = s8 + r[8], s9 + r[9], s10 + r[10], s11 + r[11]
        s12, s13, s14, s15 = s12 + r[12], s13 + r[13], s14 + r[14], s15 + r[15]
    sums = part + ((span.to(tl.int64) * tl.num_programs(2) + b) * D + d) * 16
    totals = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)
    for i in tl.static_range(16):
        tl.store(sums + i, tl.sum(totals[i]))


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


def gate_forward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, width: int | None = None
) -> Tensor:
    """Return w (B, D, width) from p (B, 3D, L), taps (3D, 3), bias and shift = in_bias (3D,).

    `width` is L, or up to 15 more: then zeros follow.
    """
    grid, L, stride, D, block = _launch(p)
    w = p.new_empty(len(p), D, width or L)
    _gate_forward_kernel[grid](p, taps, bias, shift, w, L, width or L, stride, D, BLOCK=block)
    return w


def finish_forward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, z: Tensor, w: Tensor, skip: Tensor
) -> Tensor:
    """Return y (B, D, L), rows spaced as those of p; z becomes z~ in place; both as wide as w."""
    grid, L, stride, D, block = _launch(p)
    y = padded_empty(p, D)
    _finish_forward_kernel[grid](
        p, taps, bias, shift, z, w, skip, y, L, w.shape[2], stride, D, BLOCK=block
    )
    return y


def finish_backward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, dy: Tensor, width: int | None = None
) -> Tensor:
    """Return dz (B, D, width), contiguous; `width` as for `gate_forward`."""
    grid, L, stride, D, block = _launch(p)
    dz = dy.new_empty(*dy.shape[:2], width or L)
    _finish_backward_kernel[grid](
        p, taps, bias, shift, dy, dz, L, width or L, stride, dy.stride(1), D, BLOCK=block
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

    `total` is z~. `dy` may have padded rows; total, w, dz and dw are contiguous, as wide as w.
    """
    grid, L, stride, D, block = _launch(p)
    block = min(block, _SUM_BLOCK)
    grid = (triton.cdiv(L, _SUM_SPAN), *grid[1:])
    dp = padded_empty(p, 3 * D)
    part = torch.empty(grid[0], grid[2], D, _SUMS, dtype=torch.float32, device=p.device)
    _gate_backward_kernel[grid](
        p, taps, bias, shift, skip, dy, total, w, dz, dw, dp, part, L, w.shape[2], stride,
        dy.stride(1), D, BLOCK=block, SPAN=_SUM_SPAN,
    )  # fmt: skip
    sums = summed(part.flatten(0, 1))  # (D, _SUMS)
    groups = sums[:, :-1].view(D, 3, TAPS + 2).transpose(0, 1).reshape(3 * D, TAPS + 2)
    return dp, groups[:, :TAPS], groups[:, TAPS], groups[:, TAPS + 1], sums[:, -1]
