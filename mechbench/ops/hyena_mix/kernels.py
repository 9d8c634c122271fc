"""Everything around the long convolution of an order-2 Hyena, in four passes over memory.

From p (B, 3D, L), the projections of v, x^1 and x^2 without their bias, with s(p) the short
convolution of p + in_bias with three taps:

    w = s(p_x1) s(p_v)                    gate_forward
    y = s(p_x2) (z + skip w)              finish_forward, z the convolution of w
    dz = dy s(p_x2)                       finish_backward
    dp, the gradient of everything        gate_backward, dw the convolution's gradient of w

Short convolutions, w and dz are recomputed wherever they are needed: multiplications cost less than
a pass over memory. A thread takes eight tokens at once (`mechbench.ops.kernels.pieces`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.pieces import PIECE, at, correlated, earlier, earlier_after, times
from mechbench.ops.kernels.sums import summed

TAPS = 3  # taps of the short convolution; the only number these kernels support
_BLOCK, _WARPS = 1024, 4
_SUM_BLOCK, _SUM_WARPS, _SUM_REGISTERS = 256, 1, 168  # 12 programs fit on a multiprocessor
_SUM_SPAN = 4096  # tokens of a program that sums gradients
_SUMS = 3 * (TAPS + 2) + 1  # a channel's: taps, bias and in_bias of each group; then the skip


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
def _short(row, taps, bias, shift, c, start, L, PIECES: tl.constexpr, MASKED: tl.constexpr):
    """Return the short convolution of channel c from start on."""
    a0, a1, a2, b, offset = _taps(taps, bias, shift, c)
    x = at(row, offset, times(start, 0, 8, PIECES), L, MASKED)
    x1, x2 = earlier(at(row, offset, times(start, -2, 2, PIECES), L, MASKED), x)
    return a0 * x + a1 * x1 + a2 * x2 + b


@triton.jit
def _gate_forward_tile(
    v_row, x1_row, taps, bias, shift, out, d, D, start, L, width,
    PIECES: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    t = times(start, 0, 8, PIECES)
    v = _short(v_row, taps, bias, shift, d, start, L, PIECES, MASKED)
    w = v * _short(x1_row, taps, bias, shift, D + d, start, L, PIECES, MASKED)
    if MASKED:
        tl.store(out + t, tl.where(t < L, w, 0.0).to(out.dtype.element_ty), mask=t < width)
    else:
        tl.store(out + t, w.to(out.dtype.element_ty))


@triton.jit
def _gate_forward_kernel(
    p, taps, bias, shift, w, L, width, batch, stride, D, PIECES: tl.constexpr
):  # fmt: skip
    start, d, b = tl.program_id(0) * 8 * PIECES, tl.program_id(1), tl.program_id(2)
    v_row = p + b.to(tl.int64) * batch + d.to(tl.int64) * stride
    x1_row = v_row + D.to(tl.int64) * stride
    out = w + (b.to(tl.int64) * D + d) * width
    if (start >= 2) & (start + 8 * PIECES <= L):
        _gate_forward_tile(
            v_row, x1_row, taps, bias, shift, out, d, D, start, L, width, PIECES, False
        )
    else:
        _gate_forward_tile(
            v_row, x1_row, taps, bias, shift, out, d, D, start, L, width, PIECES, True
        )


@triton.jit
def _finish_forward_tile(
    x2_row, taps, bias, shift, z, w, weight, out, c, start, L,
    PIECES: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    t = times(start, 0, 8, PIECES)
    x2 = _short(x2_row, taps, bias, shift, c, start, L, PIECES, MASKED)
    y = x2 * (at(z, 0.0, t, L, MASKED) + weight * at(w, 0.0, t, L, MASKED))
    if MASKED:
        tl.store(out + t, y.to(out.dtype.element_ty), mask=t < L)
    else:
        tl.store(out + t, y.to(out.dtype.element_ty))


@triton.jit
def _finish_forward_kernel(
    p, taps, bias, shift, z, w, skip, y, L, width, batch, stride, y_batch, y_stride, D,
    PIECES: tl.constexpr,
):  # fmt: skip
    start, d, b = tl.program_id(0) * 8 * PIECES, tl.program_id(1), tl.program_id(2)
    c = 2 * D + d
    x2_row = p + b.to(tl.int64) * batch + c.to(tl.int64) * stride
    row = (b.to(tl.int64) * D + d) * width
    out = y + b.to(tl.int64) * y_batch + d.to(tl.int64) * y_stride
    weight = tl.load(skip + d).to(tl.float32)
    if (start >= 2) & (start + 8 * PIECES <= L):
        _finish_forward_tile(
            x2_row, taps, bias, shift, z + row, w + row, weight, out, c, start, L, PIECES, False
        )
    else:
        _finish_forward_tile(
            x2_row, taps, bias, shift, z + row, w + row, weight, out, c, start, L, PIECES, True
        )


@triton.jit
def _finish_backward_tile(
    x2_row, taps, bias, shift, dy, out, c, start, L, width,
    PIECES: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    t = times(start, 0, 8, PIECES)
    x2 = _short(x2_row, taps, bias, shift, c, start, L, PIECES, MASKED)
    dz = at(dy, 0.0, t, L, MASKED) * x2  # beyond L, `at` gives zeros
    if MASKED:
        tl.store(out + t, dz.to(out.dtype.element_ty), mask=t < width)
    else:
        tl.store(out + t, dz.to(out.dtype.element_ty))


@triton.jit
def _finish_backward_kernel(
    p, taps, bias, shift, dy, dz, L, width, batch, stride, dy_batch, dy_stride, D,
    PIECES: tl.constexpr,
):  # fmt: skip
    start, d, b = tl.program_id(0) * 8 * PIECES, tl.program_id(1), tl.program_id(2)
    c = 2 * D + d
    x2_row = p + b.to(tl.int64) * batch + c.to(tl.int64) * stride
    dy_row = dy + b.to(tl.int64) * dy_batch + d.to(tl.int64) * dy_stride
    out = dz + (b.to(tl.int64) * D + d) * width
    if (start >= 2) & (start + 8 * PIECES <= L):
        _finish_backward_tile(
            x2_row, taps, bias, shift, dy_row, out, c, start, L, width, PIECES, False
        )
    else:
        _finish_backward_tile(
            x2_row, taps, bias, shift, dy_row, out, c, start, L, width, PIECES, True
        )


@triton.jit
def _gradients(
    v0, v1, v2, x0, x1, x2, g0, g1, g2, dy, z, dw, weight,
    a0, a1, a2, ab, c0, c1, c2, cb, e0, e1, e2, eb,
):  # fmt: skip
    """Return the gradients of the short convolutions' outputs, and of the skip."""
    v, x = a0 * v0 + a1 * v1 + a2 * v2 + ab, c0 * x0 + c1 * x1 + c2 * x2 + cb
    w = v * x
    dz = dy * (e0 * g0 + e1 * g1 + e2 * g2 + eb)
    dw += weight * dz
    return dw * x, dw * v, dy * (z + weight * w), dz * w


@triton.jit
def _short_sums(d, x0, x1, x2):
    """Return a tile's gradients of the three taps and of the bias, one number a piece."""
    return tl.sum(d * x0, 1), tl.sum(d * x1, 1), tl.sum(d * x2, 1), tl.sum(d, 1)


@triton.jit
def _put(row, d, t, L, MASKED: tl.constexpr):
    """Store a tile of dp; return its sum, one number a piece."""
    if MASKED:
        tl.store(row + t, d.to(row.dtype.element_ty), mask=t < L)
        d = tl.where(t < L, d, 0.0)
    else:
        tl.store(row + t, d.to(row.dtype.element_ty))
    return tl.sum(d, 1)


@triton.jit
def _gate_backward_tile(
    v_row, x_row, g_row, dy, z, dw, out, step, weight,
    a0, a1, a2, ab, va, c0, c1, c2, cb, xa, e0, e1, e2, eb, ga, start, L,
    PIECES: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Store dp from start on; return what its tokens add to the _SUMS. va, xa and ga are in_bias.

    A name ends with the number of tokens that its values are earlier; n: the two after each piece.
    """
    t, t_n = times(start, 0, 8, PIECES), times(start, 8, 2, PIECES)
    t_2 = times(start, -2, 2, PIECES)
    v0, v0n = at(v_row, va, t, L, MASKED), at(v_row, va, t_n, L, MASKED)
    x0, x0n = at(x_row, xa, t, L, MASKED), at(x_row, xa, t_n, L, MASKED)
    g0, g0n = at(g_row, ga, t, L, MASKED), at(g_row, ga, t_n, L, MASKED)
    v1, v2 = earlier(at(v_row, va, t_2, L, MASKED), v0)
    x1, x2 = earlier(at(x_row, xa, t_2, L, MASKED), x0)
    g1, g2 = earlier(at(g_row, ga, t_2, L, MASKED), g0)
    v1n, v2n = earlier_after(v0, v0n)
    x1n, x2n = earlier_after(x0, x0n)
    g1n, g2n = earlier_after(g0, g0n)
    dv, dx, dg, skip = _gradients(
        v0, v1, v2, x0, x1, x2, g0, g1, g2, at(dy, 0.0, t, L, MASKED), at(z, 0.0, t, L, MASKED),
        at(dw, 0.0, t, L, MASKED), weight, a0, a1, a2, ab, c0, c1, c2, cb, e0, e1, e2, eb,
    )  # fmt: skip
    # Beyond L, dy and dw are zero: so are these.
    dvn, dxn, dgn, _ = _gradients(
        v0n, v1n, v2n, x0n, x1n, x2n, g0n, g1n, g2n, at(dy, 0.0, t_n, L, MASKED),
        at(z, 0.0, t_n, L, MASKED), at(dw, 0.0, t_n, L, MASKED), weight,
        a0, a1, a2, ab, c0, c1, c2, cb, e0, e1, e2, eb,
    )  # fmt: skip
    s0, s1, s2, s3 = _short_sums(dv, v0, v1, v2)
    s5, s6, s7, s8 = _short_sums(dx, x0, x1, x2)
    s10, s11, s12, s13 = _short_sums(dg, g0, g1, g2)
    s4 = _put(out, correlated(dv, dvn, a0, a1, a2), t, L, MASKED)
    s9 = _put(out + step, correlated(dx, dxn, c0, c1, c2), t, L, MASKED)
    s14 = _put(out + 2 * step, correlated(dg, dgn, e0, e1, e2), t, L, MASKED)
    return s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, tl.sum(skip, 1)


@triton.jit
def _gate_backward_kernel(
    p, taps, bias, shift, skip, dy, z, dw, dp, part, L, width, batch, stride,
    dy_batch, dy_stride, dp_batch, dp_stride, D, PIECES: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    span, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    v_row = p + b.to(tl.int64) * batch + d.to(tl.int64) * stride
    x_row = v_row + D.to(tl.int64) * stride
    g_row = x_row + D.to(tl.int64) * stride
    row = (b.to(tl.int64) * D + d) * width
    dy_row = dy + b.to(tl.int64) * dy_batch + d.to(tl.int64) * dy_stride
    out = dp + b.to(tl.int64) * dp_batch + d.to(tl.int64) * dp_stride
    step = D.to(tl.int64) * dp_stride
    weight = tl.load(skip + d).to(tl.float32)
    a0, a1, a2, ab, va = _taps(taps, bias, shift, d)
    c0, c1, c2, cb, xa = _taps(taps, bias, shift, D + d)
    e0, e1, e2, eb, ga = _taps(taps, bias, shift, 2 * D + d)
    # One sum a piece, reduced once at the end: reducing every tile would cost more than the sums.
    s0 = tl.zeros((PIECES,), tl.float32)
    s1, s2, s3, s4, s5, s6, s7, s8 = s0, s0, s0, s0, s0, s0, s0, s0
    s9, s10, s11, s12, s13, s14, s15 = s0, s0, s0, s0, s0, s0, s0
    for start in range(span * SPAN, tl.minimum(span * SPAN + SPAN, L), 8 * PIECES):
        if (start >= 2) & (start + 8 * PIECES + 2 <= L):
            r = _gate_backward_tile(
                v_row, x_row, g_row, dy_row, z + row, dw + row, out, step, weight,
                a0, a1, a2, ab, va, c0, c1, c2, cb, xa, e0, e1, e2, eb, ga, start, L, PIECES, False,
            )  # fmt: skip
        else:
            r = _gate_backward_tile(
                v_row, x_row, g_row, dy_row, z + row, dw + row, out, step, weight,
                a0, a1, a2, ab, va, c0, c1, c2, cb, xa, e0, e1, e2, eb, ga, start, L, PIECES, True,
            )  # fmt: skip
        s0, s1, s2, s3 = s0 + r[0], s1 + r[1], s2 + r[2], s3 + r[3]
        s4, s5, s6, s7 = s4 + r[4], s5 + r[5], s6 + r[6], s7 + r[7]
        s8, s9, s10, s11 = s8 + r[8], s9 + r[9], s10 + r[10], s11 + r[11]
        s12, s13, s14, s15 = s12 + r[12], s13 + r[13], s14 + r[14], s15 + r[15]
    sums = part + (span.to(tl.int64) * tl.num_programs(2) + b) * 16 * D
    totals = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)
    for group in tl.static_range(3):  # the gradients of taps (3D, 3), bias and in_bias (3D,)
        c = group * D + d
        for i in tl.static_range(3):
            tl.store(sums + 3 * c + i, tl.sum(totals[5 * group + i]))
        tl.store(sums + 9 * D + c, tl.sum(totals[5 * group + 3]))
        tl.store(sums + 12 * D + c, tl.sum(totals[5 * group + 4]))
    tl.store(sums + 15 * D + d, tl.sum(s15))  # and of the skip (D,)


def _launch(p: Tensor, most: int = _BLOCK) -> tuple[tuple[int, int, int], int, int, int]:
    """Return the grid, L, D and the pieces of a program, each with at most `most` tokens."""
    B, C, L = p.shape
    assert p.stride(2) == 1, "rows of p must be contiguous"
    block = min(most, max(2 * PIECE, triton.next_power_of_2(L)))
    return (triton.cdiv(L, block), C // 3, B), L, C // 3, block // PIECE


def empty_rows(like: Tensor, channels: int) -> Tensor:
    """Return an empty (B, channels, L) in memory as `like` (B, C, L) is, padded rows included."""
    (B, _, L), (batch, stride, _) = like.shape, like.stride()
    if B > 1 and L <= batch < stride:  # channels, then the batch
        return like.new_empty(channels, B, batch)[..., :L].transpose(0, 1)
    return like.new_empty(B, channels, max(L, stride))[..., :L]


def gate_forward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, width: int | None = None
) -> Tensor:
    """Return w (B, D, width) from p (B, 3D, L), taps (3D, 3), bias and shift = in_bias (3D,).

    `width` is L, or up to 15 more: then zeros follow.
    """
    grid, L, D, pieces = _launch(p)
    w = p.new_empty(len(p), D, width or L)
    _gate_forward_kernel[grid](
        p, taps, bias, shift, w, L, width or L, *p.stride()[:2], D, PIECES=pieces, num_warps=_WARPS
    )
    return w


def finish_forward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, z: Tensor, w: Tensor, skip: Tensor
) -> Tensor:
    """Return y (B, D, L), in memory as p is; z is contiguous and as wide as w."""
    grid, L, D, pieces = _launch(p)
    y = empty_rows(p, D)
    _finish_forward_kernel[grid](
        p, taps, bias, shift, z, w, skip, y, L, w.shape[2], *p.stride()[:2], *y.stride()[:2], D,
        PIECES=pieces, num_warps=_WARPS,
    )  # fmt: skip
    return y


def finish_backward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, dy: Tensor, width: int | None = None
) -> Tensor:
    """Return dz (B, D, width), contiguous; `width` as for `gate_forward`."""
    grid, L, D, pieces = _launch(p)
    dz = dy.new_empty(*dy.shape[:2], width or L)
    _finish_backward_kernel[grid](
        p, taps, bias, shift, dy, dz, L, width or L, *p.stride()[:2], *dy.stride()[:2], D,
        PIECES=pieces, num_warps=_WARPS,
    )  # fmt: skip
    return dz


def gate_backward(
    p: Tensor,
    taps: Tensor,
    bias: Tensor,
    shift: Tensor,
    skip: Tensor,
    dy: Tensor,
    z: Tensor,
    dw: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of p, taps, bias, in_bias and skip, all but the first in float32.

    z is the convolution's output and dw its gradient of w: (B, D, width), contiguous.
    """
    (_, *grid), L, D, pieces = _launch(p, _SUM_BLOCK)
    spans, B = triton.cdiv(L, _SUM_SPAN), len(p)
    dp = empty_rows(p, 3 * D)
    part = torch.empty(spans * B, _SUMS * D, dtype=torch.float32, device=p.device)
    _gate_backward_kernel[(spans, *grid)](
        p, taps, bias, shift, skip, dy, z, dw, dp, part, L, dw.shape[2], *p.stride()[:2],
        *dy.stride()[:2], *dp.stride()[:2], D,
        PIECES=pieces, SPAN=_SUM_SPAN, num_warps=_SUM_WARPS, maxnreg=_SUM_REGISTERS,
    )  # fmt: skip
    dtaps, dbias, dshift, dskip = summed(part).split([3 * D * TAPS, 3 * D, 3 * D, D])
    return dp, dtaps.view(3 * D, TAPS), dbias, dshift, dskip
