"""What stands around the long convolution of an order-2 Hyena, in four passes over the memory.

From p (B, 3D, L), the projections of v, x^1 and x^2 without their bias, with s(p) the short
convolution of p + in_bias:

    w = s(p_x1) s(p_v)                    gate_forward
    y = s(p_x2) (z + skip w)              finish_forward, z the convolution of w
    dz = dy s(p_x2)                       finish_backward
    dp, the gradient of everything        gate_backward, dw the convolution's gradient of w

Short convolutions are computed again wherever they are needed: three multiplications cost less
than a pass over the memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _load(row, shift, t, mask):
    """Return row_t + shift as float32, zero where masked."""
    return tl.where(mask, tl.load(row + t, mask=mask, other=0.0).to(tl.float32) + shift, 0.0)


@triton.jit
def _short(row, taps, bias, shift, c, t, L, K: tl.constexpr):
    """Return the short convolution of channel c at times t; zero outside [0, L)."""
    total = tl.zeros_like(t).to(tl.float32) + tl.load(bias + c).to(tl.float32)
    offset = tl.load(shift + c).to(tl.float32)
    for k in tl.static_range(K):
        x = _load(row, offset, t - k, (t >= k) & (t < L))
        total += tl.load(taps + c * K + k).to(tl.float32) * x
    return tl.where(t < L, total, 0.0)


@triton.jit
def _gate_forward_kernel(p, taps, bias, shift, w, L, D, BLOCK: tl.constexpr, K: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    rows = p + (b.to(tl.int64) * 3 * D + d) * L
    step = D.to(tl.int64) * L
    v = _short(rows, taps, bias, shift, d, t, L, K)
    x1 = _short(rows + step, taps, bias, shift, D + d, t, L, K)
    out = w + (b.to(tl.int64) * D + d) * L
    tl.store(out + t, (x1 * v).to(w.dtype.element_ty), mask=t < L)


@triton.jit
def _finish_forward_kernel(
    p, taps, bias, shift, z, w, skip, y, L, D, BLOCK: tl.constexpr, K: tl.constexpr
):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    x2_row = p + (b.to(tl.int64) * 3 * D + 2 * D + d) * L
    x2 = _short(x2_row, taps, bias, shift, 2 * D + d, t, L, K)
    row = (b.to(tl.int64) * D + d) * L + t
    total = tl.load(z + row, mask=t < L, other=0.0).to(tl.float32)
    total += tl.load(skip + d).to(tl.float32) * tl.load(w + row, mask=t < L, other=0.0).to(
        tl.float32
    )
    tl.store(y + row, (x2 * total).to(y.dtype.element_ty), mask=t < L)


@triton.jit
def _finish_backward_kernel(
    p, taps, bias, shift, dy, dz, L, D, BLOCK: tl.constexpr, K: tl.constexpr
):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    x2_row = p + (b.to(tl.int64) * 3 * D + 2 * D + d) * L
    x2 = _short(x2_row, taps, bias, shift, 2 * D + d, t, L, K)
    row = (b.to(tl.int64) * D + d) * L + t
    grad = tl.load(dy + row, mask=t < L, other=0.0).to(tl.float32) * x2
    tl.store(dz + row, grad.to(dz.dtype.element_ty), mask=t < L)


@triton.jit
def _gate_backward_kernel(
    p,
    taps,
    bias,
    shift,
    skip,
    dy,
    z,
    w,
    dz,
    dw,
    dp,
    part,
    L,
    D,
    BLOCK: tl.constexpr,
    K: tl.constexpr,
):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    v_row = p + (b.to(tl.int64) * 3 * D + d) * L
    step = D.to(tl.int64) * L
    x1_row, x2_row = v_row + step, v_row + 2 * step
    row = (b.to(tl.int64) * D + d) * L
    weight = tl.load(skip + d).to(tl.float32)
    dpv = tl.zeros((BLOCK,), tl.float32)
    dp1 = tl.zeros((BLOCK,), tl.float32)
    dp2 = tl.zeros((BLOCK,), tl.float32)
    # Partial sums of one program: for each group K taps, bias and in_bias; then the skip.
    sums = part + ((block.to(tl.int64) * tl.num_programs(2) + b) * D + d) * (3 * (K + 2) + 1)
    for j in tl.static_range(K):  # what p_t gives to the output at t + j
        s = t + j
        inside = s < L
        dz_s = tl.load(dz + row + s, mask=inside, other=0.0).to(tl.float32)
        dw_s = tl.load(dw + row + s, mask=inside, other=0.0).to(tl.float32) + weight * dz_s
        w_s = tl.load(w + row + s, mask=inside, other=0.0).to(tl.float32)
        z_s = tl.load(z + row + s, mask=inside, other=0.0).to(tl.float32)
        dy_s = tl.load(dy + row + s, mask=inside, other=0.0).to(tl.float32)
        dv = dw_s * _short(x1_row, taps, bias, shift, D + d, s, L, K)
        d1 = dw_s * _short(v_row, taps, bias, shift, d, s, L, K)
        d2 = dy_s * (z_s + weight * w_s)
        dpv += tl.load(taps + d * K + j).to(tl.float32) * dv
        dp1 += tl.load(taps + (D + d) * K + j).to(tl.float32) * d1
        dp2 += tl.load(taps + (2 * D + d) * K + j).to(tl.float32) * d2
        if j == 0:
            for k in tl.static_range(K):
                mask = (t >= k) & (t < L)
                pv = _load(v_row, tl.load(shift + d).to(tl.float32), t - k, mask)
                p1 = _load(x1_row, tl.load(shift + D + d).to(tl.float32), t - k, mask)
                p2 = _load(x2_row, tl.load(shift + 2 * D + d).to(tl.float32), t - k, mask)
                tl.store(sums + k, tl.sum(dv * pv))
                tl.store(sums + (K + 2) + k, tl.sum(d1 * p1))
                tl.store(sums + 2 * (K + 2) + k, tl.sum(d2 * p2))
            tl.store(sums + K, tl.sum(dv))
            tl.store(sums + (K + 2) + K, tl.sum(d1))
            tl.store(sums + 2 * (K + 2) + K, tl.sum(d2))
            tl.store(sums + 3 * (K + 2), tl.sum(dz_s * w_s))
    tl.store(sums + K + 1, tl.sum(dpv))
    tl.store(sums + (K + 2) + K + 1, tl.sum(dp1))
    tl.store(sums + 2 * (K + 2) + K + 1, tl.sum(dp2))
    out = dp + (b.to(tl.int64) * 3 * D + d) * L + t
    tl.store(out, dpv.to(dp.dtype.element_ty), mask=t < L)
    tl.store(out + step, dp1.to(dp.dtype.element_ty), mask=t < L)
    tl.store(out + 2 * step, dp2.to(dp.dtype.element_ty), mask=t < L)


def _grid(p: Tensor) -> tuple[tuple[int, int, int], dict[str, int], int, int]:
    B, D, L = p.shape[0], p.shape[1] // 3, p.shape[2]
    block = min(_BLOCK, max(16, triton.next_power_of_2(L)))
    return (triton.cdiv(L, block), D, B), {"BLOCK": block}, L, D


def gate_forward(p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """Return w (B, D, L) from p (B, 3D, L), taps (3D, K), bias and shift = in_bias (3D,)."""
    grid, block, L, D = _grid(p)
    w = p.new_empty(p.shape[0], D, L)
    _gate_forward_kernel[grid](p, taps, bias, shift, w, L, D, K=taps.shape[1], **block)
    return w


def finish_forward(
    p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, z: Tensor, w: Tensor, skip: Tensor
) -> Tensor:
    """Return y (B, D, L)."""
    grid, block, L, D = _grid(p)
    y = torch.empty_like(w)
    _finish_forward_kernel[grid](
        p, taps, bias, shift, z, w, skip, y, L, D, K=taps.shape[1], **block
    )
    return y


def finish_backward(p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, dy: Tensor) -> Tensor:
    """Return dz (B, D, L)."""
    grid, block, L, D = _grid(p)
    dz = torch.empty_like(dy)
    _finish_backward_kernel[grid](p, taps, bias, shift, dy, dz, L, D, K=taps.shape[1], **block)
    return dz


def gate_backward(
    p: Tensor,
    taps: Tensor,
    bias: Tensor,
    shift: Tensor,
    skip: Tensor,
    dy: Tensor,
    z: Tensor,
    w: Tensor,
    dz: Tensor,
    dw: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of p, taps, bias, in_bias and skip, all but the first in float32."""
    grid, block, L, D = _grid(p)
    K = taps.shape[1]
    dp = torch.empty_like(p)
    part = torch.empty(grid[0], grid[2], D, 3 * (K + 2) + 1, dtype=torch.float32, device=p.device)
    _gate_backward_kernel[grid](
        p, taps, bias, shift, skip, dy, z, w, dz, dw, dp, part, L, D, K=K, **block
    )
    sums = part.sum((0, 1))  # (D, 3 (K + 2) + 1)
    groups = sums[:, :-1].view(D, 3, K + 2).transpose(0, 1).reshape(3 * D, K + 2)
    return dp, groups[:, :K], groups[:, K], groups[:, K + 1], sums[:, -1]
