"""Causal convolution as products with Toeplitz matrices on tensor cores, in O(B D L^2).

The sequence is cut into blocks of T positions. A program takes one channel and M rows, pairs (b, i)
of a sequence of the batch and one of its blocks, and walks over lags, S at a time:

    Z[b, i] = sum_j X[b, i - j] H_j,   H_j[s, t] = h[jS + t - s]        zero for negative lags
    dV[b, i] = sum_j dZ[b, i + j] H'_j,   H'_j[t, s] = h[jS + t - s]
    dh[jT + t - s] = sum over (b, i), then over diagonals of G_j = sum V[b, i - j]^T dZ[b, i]

Rows of a Toeplitz matrix are one row of taps, each shifted by one tap more, so no aligned read
serves them all. Eight copies of the taps, shifted by 0 to 7, do: row s lies in copy s mod 8 at a
multiple of 16 bytes. The copies hold the taps in the number type of the input, times a power of two
so that float16 does not underflow, and what was lost in rounding them as a second number.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.triton import beside, interpreted

_TILE, _STEP = 128, 64  # T and S where the sequence is long enough
_PROGRAMS = 132  # as many as a large GPU has multiprocessors
_GROUP = 64  # channels taken together: their inputs stay in the L2 cache between programs
_BLOCK = 256
_ALIGN = 16  # numbers: rows spaced by a multiple of it are read in whole vectors
_COPIES = 8  # shifted copies of the taps: 16 bytes of a half type
_REGISTERS = 128  # of a thread at most, so that two programs share a multiprocessor


@triton.jit
def _taps_kernel(
    h, taps, scales, stride, K, W, PAD: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr
):
    """Write copies r = 0 to 7 of h[x - PAD - r], scaled: first rounded, then what is left."""
    block, d = tl.program_id(0), tl.program_id(1)
    row = h + d.to(tl.int64) * stride
    most = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, K, BLOCK):
        k = start + tl.arange(0, BLOCK)
        most = tl.maximum(most, tl.abs(tl.load(row + k, mask=k < K, other=0.0).to(tl.float32)))
    exponent = tl.max(most, 0).to(tl.int32, bitcast=True) & 0x7F800000
    power = exponent.to(tl.float32, bitcast=True)  # the largest tap's leading bit
    scale = tl.where(power > 0.0, power, 1.0) * 0.00390625  # taps below 512: far from either end
    if block == 0:
        tl.store(scales + d, scale)
    x = block * BLOCK + tl.arange(0, BLOCK)
    out = taps + d.to(tl.int64) * 16 * W + x
    for r in tl.static_range(8):
        lag = x - PAD - r
        tap = tl.load(row + lag, mask=(lag >= 0) & (lag < K), other=0.0).to(tl.float32)
        tap = tl.div_rn(tap, scale)
        high = tap.to(taps.dtype.element_ty)
        tl.store(out + r * W, high, mask=x < W)
        if SPLIT:
            low = (tap - high.to(tl.float32)).to(taps.dtype.element_ty)
            tl.store(out + (8 + r) * W, low, mask=x < W)


@triton.jit
def _dot(a, b, acc, WIDE: tl.constexpr):
    """Add a b. WIDE is for Triton's interpreter, which multiplies the bits of bfloat16 numbers."""
    if WIDE:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc)
    return tl.dot(a, b, acc)


@triton.jit
def _align_kernel(x, out, L, stride_b, stride_d, stride, BLOCK: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    row = x + b.to(tl.int64) * stride_b + d.to(tl.int64) * stride_d
    to = out + (b.to(tl.int64) * tl.num_programs(1) + d) * stride
    tl.store(to + t, tl.load(row + t, mask=t < L, other=0.0), mask=t < stride)


@triton.jit(do_not_specialize=["B", "blocks", "batches"])
def _product_kernel(
    x, taps, scales, out, B, D, L, filled, K, blocks, W, stride_b, stride_d, group, batches,
    ADJOINT: tl.constexpr, SPLIT: tl.constexpr, M: tl.constexpr, BT: tl.constexpr,
    T: tl.constexpr, S: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Store Z, or dV if ADJOINT, of M rows of a channel: BT sequences, M / BT blocks of each.

    x has zeros from L to `filled`. Programs with the most lags come first.
    """
    d = tl.program_id(1) * group + tl.program_id(0) % group
    rest = tl.program_id(0) // group
    if d >= D:
        return
    I: tl.constexpr = M // BT  # noqa: E741
    r = tl.arange(0, M)
    b = (rest % batches) * BT + r % BT
    if ADJOINT:
        first = (rest // batches) * I
        steps = tl.cdiv(L - first * T, S)
    else:
        first = blocks - (rest // batches + 1) * I
        steps = (first + I) * (T // S)
    steps = tl.minimum(steps, tl.cdiv(K + T - 1, S))  # beyond its taps a filter is zero
    i = first + r // BT
    row = x + b.to(tl.int64) * stride_b + d.to(tl.int64) * stride_d
    k, n = tl.arange(0, S)[:, None], tl.arange(0, T)[None, :]
    # The lag is jS + k - n, in copy n % 8, if ADJOINT; otherwise jS + S - T + n - k, in copy k % 8.
    shift = n if ADJOINT else k
    along = k + T if ADJOINT else n + S
    tile = taps + d.to(tl.int64) * 16 * W + (shift % 8) * W - (shift // 8) * 8 + along
    acc = tl.zeros((M, T), tl.float32)
    for j in range(steps):
        start = i * T + (j * S if ADJOINT else T - S - j * S)
        t = start[:, None] + tl.arange(0, S)[None, :]
        live = ((b < B) & (start >= 0))[:, None] & (t < filled)
        values = tl.load(row[:, None] + t, mask=live, other=0.0)
        acc = _dot(values, tl.load(tile + j * S), acc, WIDE)
        if SPLIT:
            acc = _dot(values, tl.load(tile + 8 * W + j * S), acc, WIDE)
    t = (i * T)[:, None] + n
    live = ((b < B) & (i >= 0))[:, None] & (t < L)
    to = out + (b.to(tl.int64) * D + d)[:, None] * L + t
    tl.store(to, (acc * tl.load(scales + d)).to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["B", "blocks", "batches", "parts"])
def _lags_kernel(
    v, dz, part, B, D, filled, blocks, width, v_stride_b, v_stride_d, dz_stride_b, dz_stride_d,
    group, batches, parts,
    M: tl.constexpr, BT: tl.constexpr, T: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sum the diagonals of G_j over a part of the rows (b, i); j = 0 has the most, comes first."""
    d = tl.program_id(1) * group + tl.program_id(0) % group
    rest = tl.program_id(0) // group
    if d >= D:
        return
    j, p = rest // parts, rest % parts
    I: tl.constexpr = M // BT  # noqa: E741
    r = tl.arange(0, M)
    v_row, dz_row = v + d.to(tl.int64) * v_stride_d, dz + d.to(tl.int64) * dz_stride_d
    steps = tl.cdiv(blocks - j, I) * batches
    each = tl.cdiv(steps, parts)
    n = tl.arange(0, T)
    acc = tl.zeros((T, T), tl.float32)  # [s, t]
    begin = p * each
    tile, i = begin % batches, (begin // batches) * I
    # At least one step, if only of zeros: if the loop might be skipped, products would not overlap.
    for _ in range(tl.maximum(tl.minimum(steps - begin, each), 1)):
        b = tile * BT + r % BT
        start = (r // BT + i) * T  # of v's block; that of dz lies j blocks later
        s, t = start[:, None] + n[None, :], (start + j * T)[:, None] + n[None, :]
        live, batch = (b < B)[:, None], b.to(tl.int64)[:, None]
        values = tl.load(v_row + batch * v_stride_b + s, mask=live & (s < filled), other=0.0)
        grads = tl.load(dz_row + batch * dz_stride_b + t, mask=live & (t < filled), other=0.0)
        acc = _dot(tl.trans(values), grads, acc, WIDE)
        last = tile + 1 == batches
        tile, i = tl.where(last, 0, tile + 1), tl.where(last, i + I, i)
    # Row s turned left by s: column c then holds the lags jT + c and, wrapped around, jT + c - T.
    wrapped = n[:, None] + n[None, :] >= T
    turned = tl.gather(acc, (n[:, None] + n[None, :]) % T, 1)
    out = part + (p.to(tl.int64) * D + d) * 2 * width + j * T + n
    tl.store(out, tl.sum(tl.where(wrapped, 0.0, turned), 0))
    tl.store(out + width, tl.sum(tl.where(wrapped, turned, 0.0), 0))


@triton.jit(do_not_specialize=["parts"])
def _finish_kernel(part, dh, D, L, K, width, parts, T: tl.constexpr, BLOCK: tl.constexpr):
    block, d = tl.program_id(0), tl.program_id(1)
    k = block * BLOCK + tl.arange(0, BLOCK)
    live = k < tl.minimum(L, K)
    total = tl.zeros((BLOCK,), tl.float32)
    for p in range(parts):
        row = part + (tl.cast(p, tl.int64) * D + d) * 2 * width + k
        total += tl.load(row, mask=live & (k < width), other=0.0)
        total += tl.load(row + width + T, mask=live & (k + T < width), other=0.0)
    tl.store(dh + d.to(tl.int64) * K + k, total.to(dh.dtype.element_ty), mask=k < K)


def _aligned(x: Tensor) -> Tensor:
    """Return x (B, D, L) with rows that are read in whole vectors, or a copy with zeros after L."""
    B, D, L = x.shape
    x = beside(x)
    if x.data_ptr() % 16 == 0 and all(n % _ALIGN == 0 for n in (x.stride(0), x.stride(1), L)):
        return x
    out = x.new_empty(B, D, triton.cdiv(L, _ALIGN) * _ALIGN)
    grid = (triton.cdiv(out.shape[2], _BLOCK), D, B)
    _align_kernel[grid](x, out, L, x.stride(0), x.stride(1), out.shape[2], BLOCK=_BLOCK)
    return out


def _tile(L: int) -> tuple[int, int, int]:
    """Return T, S and the number of blocks."""
    T = min(_TILE, max(32, triton.next_power_of_2(L)))
    return T, min(_STEP, T), triton.cdiv(L, T)


def _rows(B: int, M: int, blocks: int) -> tuple[int, int, int]:
    """Return how many sequences share a tile of M rows, in how many tiles, and tiles in all."""
    BT = min(M, triton.next_power_of_2(B))
    batches = triton.cdiv(B, BT)
    return BT, batches, triton.cdiv(blocks, M // BT) * batches


def _product(x: Tensor, h: Tensor, L: int, adjoint: bool) -> Tensor:
    """Return Z or dV (B, D, L) for x (B, D, at least L), aligned."""
    (B, D, filled), K = x.shape, min(L, h.shape[1])
    T, S, blocks = _tile(L)
    W, split = (blocks + 1) * T, h.dtype != x.dtype
    h = beside(h)
    taps, scales = x.new_empty(D, 2, _COPIES, W), x.new_empty(D, dtype=torch.float32)
    _taps_kernel[(triton.cdiv(W, _BLOCK), D)](
        h, taps, scales, h.stride(0), K, W, PAD=T, SPLIT=split, BLOCK=_BLOCK
    )
    M = 128 if D * _rows(B, 128, blocks)[2] >= _PROGRAMS else 64
    BT, batches, tiles = _rows(B, M, blocks)
    group = min(D, _GROUP)
    out = x.new_empty(B, D, L)
    _product_kernel[(group * tiles, triton.cdiv(D, group))](
        x, taps, scales, out, B, D, L, filled, K, blocks, W, x.stride(0), x.stride(1), group,
        batches, ADJOINT=adjoint, SPLIT=split, M=M, BT=BT, T=T, S=S, WIDE=interpreted(),
        num_warps=M // 16, num_stages=2, maxnreg=_REGISTERS,
    )  # fmt: skip
    return out


def _filter_gradient(dz: Tensor, v: Tensor, h: Tensor, L: int) -> Tensor:
    """Return the gradient of h for dz and v (B, D, at least L), aligned."""
    (B, D, filled), K = v.shape, h.shape[1]
    T, M, blocks = _tile(L)
    lags = min(blocks, triton.cdiv(min(K, L) - 1, T) + 1)  # blocks with lags below K
    BT, batches, tiles = _rows(B, M, blocks)
    parts = max(1, min(tiles, 2 * _PROGRAMS // (D * lags)))
    part = v.new_empty(parts, D, 2, lags * T, dtype=torch.float32)
    group = min(D, _GROUP)
    _lags_kernel[(group * lags * parts, triton.cdiv(D, group))](
        v, dz, part, B, D, filled, blocks, lags * T, v.stride(0), v.stride(1), dz.stride(0),
        dz.stride(1), group, batches, parts, M=M, BT=BT, T=T, WIDE=interpreted(),
        num_warps=8 if T == 128 else 4, num_stages=3, maxnreg=_REGISTERS,
    )  # fmt: skip
    dh = torch.empty(h.shape, dtype=h.dtype, device=h.device)
    _finish_kernel[(triton.cdiv(K, _BLOCK), D)](
        part, dh, D, L, K, lags * T, parts, T=T, BLOCK=_BLOCK
    )
    return dh


def toeplitz_forward(v: Tensor, h: Tensor) -> Tensor:
    """Return h * v (B, D, L), contiguous, for v (B, D, L) of a half type and h (D, K) of any."""
    return _product(_aligned(v), h, v.shape[2], adjoint=False)


def toeplitz_backward(dz: Tensor, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of v (B, D, L), contiguous, and of h (D, K), in their dtypes."""
    L = v.shape[2]
    v, dz = _aligned(v), _aligned(dz.to(v.dtype))
    return _product(dz, h, L, adjoint=True), _filter_gradient(dz, v, h, L)
