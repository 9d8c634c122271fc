"""Fused kernels of `mechbench.ops.forgetting_attention`: weights are computed where they are used.

The sequence is cut into blocks of R tokens. With c the sums of log2 f from the start, in float64, a
block keeps that of its first token, c_i, and for each token what it has lost since, w_t = c_t - c_i
in float32. The logit of a query t in block i and a key s in block j, to the base 2, is

    x_ts = (q_t . k_s) log2(e) / sqrt(d) - w_s + (c_i - c_j)    up to w_t, which softmax ignores

so that only differences of float64 sums are rounded, and what a tile adds is one number. The
forward pass keeps e_t = log2 sum_s 2^x_ts. With dx = 2^(x - e) * (dy v^T - dy . y):

    dq = dx k / sqrt(d)   dk = dx^T q / sqrt(d)   dv = 2^(x - e)^T dy   dc = rows - columns of dx

Rows of dx sum to 0 only before rounding; with both, what rounding leaves does not add up over the
sequence when dc is summed from the end to give the gradient of log f.

Gates that closed leave blocks of keys without weight: where |q| and |k| bound every weight of a
block by 2^-150, which is 0 in float32, it is left out, forward and backward.
Source: Dao 2023 (arXiv:2307.08691), the order of loops; Lin et al. 2025 (arXiv:2504.06949), leaving
out blocks, there of weights that are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.forgetting_attention.kernels.gates import (
    cumulated_gates,
    first_needed,
    gate_gradient,
    last_needing,
    longest_norm,
)
from mechbench.ops.kernels.chunks import block, head_at, put, strides

_LOG2_E = 1.4426950408889634
_SLACK = tl.constexpr(1.01)  # products of norms, for factors that a product rounds


class Kept(NamedTuple):
    """What the forward pass leaves to the backward one; M is L rounded up to whole blocks."""

    within: Tensor  # w, (B, H, M)
    start: Tensor  # c_i, (B, H, blocks), float64
    first: Tensor  # the first block of keys that a block of queries needs, (B, H, blocks)
    log_sums: Tensor  # e, (B, H, M); infinite beyond L, where no query gives weight


@triton.jit
def _tile(base, t0, stride, W: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Load rows from t0 of a matrix with W columns, all of which it has, in its own type."""
    t, col = t0 + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    at = base + t.to(tl.int64)[:, None] * stride + col[None, :]
    if W == BLOCK:
        return tl.load(at)
    return tl.load(at, mask=(col < W)[None, :] & (t >= 0)[:, None], other=0.0)


@triton.jit
def _last_tile(base, t0, stride, L, W: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Do as `_tile`, with zeros beyond L rows."""
    t, col = t0 + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    at = base + t.to(tl.int64)[:, None] * stride + col[None, :]
    return tl.load(at, mask=(t < L)[:, None] & (col < W)[None, :], other=0.0)


@triton.jit
def _attend(
    query, key, value, lost, shift, t0, s0, m, total, out, scale,
    DIAGONAL: tl.constexpr, PREC: tl.constexpr, R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Add a tile of keys: to the largest logits m, the sums of weights and those of values."""
    x = tl.dot(query, tl.trans(key), input_precision=PREC) * scale - lost[None, :]
    if DIAGONAL:
        t, s = t0 + tl.arange(0, R), s0 + tl.arange(0, N)
        x = tl.where(t[:, None] >= s[None, :], x, float("-inf"))
    higher = tl.maximum(m, tl.max(x, 1) + shift)
    weight = tl.exp2(x - (higher - shift)[:, None])
    rest = tl.exp2(m - higher)
    total = total * rest + tl.sum(weight, 1)
    out = out * rest[:, None]
    out = tl.dot(weight.to(value.dtype), value, out, input_precision=PREC)
    return higher, total, out


@triton.jit
def _forward_kernel(
    q, k, v, within, start, longest, first, y, log_sums,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, yb, yh, yt, L, H, blocks, scale,
    PREC: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
    R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    head, i = pid // blocks, blocks - 1 - pid % blocks  # those with the most keys first
    b, h = head // H, head % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    y = head_at(y, b, h, yb, yh)
    row = head.to(tl.int64) * blocks * R
    within, log_sums = within + row, log_sums + row
    start, longest = start + head * blocks, longest + head * blocks
    t0 = i * R
    query = _last_tile(q, t0, qt, L, K, R, BK)
    begin = first_needed(start, longest, i, longest_norm(query) * scale * _SLACK)
    tl.store(first + head * blocks + i, begin)
    m = tl.full((R,), float("-inf"), tl.float32)
    total, out = tl.zeros((R,), tl.float32), tl.zeros((R, BP), tl.float32)
    here = tl.load(start + i)
    there = tl.load(start + begin)
    for s0 in range(begin * R, t0, N):
        shift = (here - there).to(tl.float32)
        there = tl.load(start + (s0 + N) // R)  # the next tile's
        key, value = _tile(k, s0, kt, K, N, BK), _tile(v, s0, vt, P, N, BP)
        lost = tl.load(within + s0 + tl.arange(0, N))
        m, total, out = _attend(
            query, key, value, lost, shift, t0, s0, m, total, out, scale, False, PREC, R, N
        )
    for s0 in range(t0, tl.minimum(t0 + R, L), N):
        key, value = _last_tile(k, s0, kt, L, K, N, BK), _last_tile(v, s0, vt, L, P, N, BP)
        lost = tl.load(within + s0 + tl.arange(0, N))
        m, total, out = _attend(
            query, key, value, lost, 0.0, t0, s0, m, total, out, scale, True, PREC, R, N
        )
    t = t0 + tl.arange(0, R)
    put(y, t.to(tl.int64), L, yt, P, out / total[:, None], BP)
    tl.store(log_sums + t, tl.where(t < L, m + tl.log2(total), float("inf")))


@triton.jit
def _gradient_of_logits(
    query, key, value, grad, lost, rest, mean, t0, s0, scale,
    DIAGONAL: tl.constexpr, PREC: tl.constexpr, R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Return dx (R, N) for a tile of keys; x - e is q k^T scale - lost + rest."""
    x = tl.dot(query, tl.trans(key), input_precision=PREC) * scale - lost[None, :]
    x += rest[:, None]
    if DIAGONAL:
        t, s = t0 + tl.arange(0, R), s0 + tl.arange(0, N)
        x = tl.where(t[:, None] >= s[None, :], x, float("-inf"))
    d_weight = tl.dot(grad, tl.trans(value), input_precision=PREC)
    return tl.exp2(x) * (d_weight - mean[:, None])


@triton.jit
def _dq_kernel(
    q, k, v, y, dy, within, start, first, log_sums, mean, dq, dc,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, yb, yh, yt, gb, gh, gt, db, dh, dt,
    L, H, blocks, scale, factor,
    PREC: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
    R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Store dq, dy . y in `mean`, and in dc the sums of the rows of dx."""
    pid = tl.program_id(0)
    head, i = pid // blocks, blocks - 1 - pid % blocks
    b, h = head // H, head % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    y, dy, dq = head_at(y, b, h, yb, yh), head_at(dy, b, h, gb, gh), head_at(dq, b, h, db, dh)
    row = head.to(tl.int64) * blocks * R
    within, start = within + row, start + head * blocks
    t0 = i * R
    t = t0 + tl.arange(0, R)
    query, grad = _last_tile(q, t0, qt, L, K, R, BK), _last_tile(dy, t0, gt, L, P, R, BP)
    out = _last_tile(y, t0, yt, L, P, R, BP)
    middle = tl.sum(out.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(mean + row + t, middle)
    sums = tl.load(log_sums + row + t)
    d_query, d_row = tl.zeros((R, BK), tl.float32), tl.zeros((R,), tl.float32)
    begin = tl.load(first + head * blocks + i)
    here = tl.load(start + i)
    there = tl.load(start + begin)
    for s0 in range(begin * R, t0, N):
        shift = (here - there).to(tl.float32)
        there = tl.load(start + (s0 + N) // R)
        key, value = _tile(k, s0, kt, K, N, BK), _tile(v, s0, vt, P, N, BP)
        lost = tl.load(within + s0 + tl.arange(0, N))
        dx = _gradient_of_logits(
            query, key, value, grad, lost, shift - sums, middle, t0, s0, scale, False, PREC, R, N
        )
        d_row += tl.sum(dx, 1)
        d_query = tl.dot(dx.to(key.dtype), key, d_query, input_precision=PREC)
    for s0 in range(t0, tl.minimum(t0 + R, L), N):
        key, value = _last_tile(k, s0, kt, L, K, N, BK), _last_tile(v, s0, vt, L, P, N, BP)
        lost = tl.load(within + s0 + tl.arange(0, N))
        dx = _gradient_of_logits(
            query, key, value, grad, lost, -sums, middle, t0, s0, scale, True, PREC, R, N
        )
        d_row += tl.sum(dx, 1)
        d_query = tl.dot(dx.to(key.dtype), key, d_query, input_precision=PREC)
    put(dq, t.to(tl.int64), L, dt, K, d_query * factor, BK)
    tl.store(dc + row + t, d_row)


@triton.jit
def _weigh_back(
    key, value, query, grad, sums, mean, lift, t0, s0, d_key, d_value, d_lost, scale,
    DIAGONAL: tl.constexpr, PREC: tl.constexpr, R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Add a tile of queries to the gradients of keys, of values and of w; all is transposed."""
    x = tl.dot(key, tl.trans(query), input_precision=PREC) * scale - sums[None, :]
    x += lift[:, None]
    if DIAGONAL:
        s, t = s0 + tl.arange(0, R), t0 + tl.arange(0, N)
        x = tl.where(t[None, :] >= s[:, None], x, float("-inf"))
    weight = tl.exp2(x)
    d_value = tl.dot(weight.to(grad.dtype), grad, d_value, input_precision=PREC)
    d_weight = tl.dot(value, tl.trans(grad), input_precision=PREC)
    dx = weight * (d_weight - mean[None, :])
    d_lost += tl.sum(dx, 1)
    d_key = tl.dot(dx.to(query.dtype), query, d_key, input_precision=PREC)
    return d_key, d_value, d_lost


@triton.jit
def _dkv_kernel(
    q, k, v, dy, within, start, first, log_sums, mean, dk, dv, dc,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, ab, ah, at, wb, wh, wt,
    L, H, blocks, scale, factor,
    PREC: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
    R: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Store dk and dv, and subtract the sums of the columns of dx from dc."""
    pid = tl.program_id(0)
    head, j = pid // blocks, pid % blocks
    b, h = head // H, head % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    dy, dk, dv = head_at(dy, b, h, gb, gh), head_at(dk, b, h, ab, ah), head_at(dv, b, h, wb, wh)
    row = head.to(tl.int64) * blocks * R
    log_sums, mean, start = log_sums + row, mean + row, start + head * blocks
    s0 = j * R
    s = s0 + tl.arange(0, R)
    key, value = _last_tile(k, s0, kt, L, K, R, BK), _last_tile(v, s0, vt, L, P, R, BP)
    lost = tl.load(within + row + s)
    d_key, d_value = tl.zeros((R, BK), tl.float32), tl.zeros((R, BP), tl.float32)
    d_lost = tl.zeros((R,), tl.float32)
    for t0 in range(s0, tl.minimum(s0 + R, L), N):
        t = t0 + tl.arange(0, N)
        query, grad = _last_tile(q, t0, qt, L, K, N, BK), _last_tile(dy, t0, gt, L, P, N, BP)
        sums, middle = tl.load(log_sums + t), tl.load(mean + t)
        d_key, d_value, d_lost = _weigh_back(
            key, value, query, grad, sums, middle, -lost, t0, s0, d_key, d_value, d_lost, scale,
            True, PREC, R, N,
        )  # fmt: skip
    end = last_needing(first + head * blocks, j, blocks)
    here = tl.load(start + j)
    there = tl.load(start + tl.minimum(j + 1, blocks - 1))
    for t0 in range(s0 + R, tl.minimum((end + 1) * R, L), N):
        shift = (there - here).to(tl.float32)
        there = tl.load(start + tl.minimum((t0 + N) // R, blocks - 1))
        t = t0 + tl.arange(0, N)
        query, grad = _last_tile(q, t0, qt, L, K, N, BK), _last_tile(dy, t0, gt, L, P, N, BP)
        sums, middle = tl.load(log_sums + t), tl.load(mean + t)
        d_key, d_value, d_lost = _weigh_back(
            key, value, query, grad, sums, middle, shift - lost, t0, s0, d_key, d_value, d_lost,
            scale, False, PREC, R, N,
        )  # fmt: skip
    s_wide = s.to(tl.int64)
    put(dk, s_wide, L, at, K, d_key * factor, BK)
    put(dv, s_wide, L, wt, P, d_value, BP)
    tl.store(dc + row + s, tl.load(dc + row + s) - d_lost)


def _row_bytes(q: Tensor, v: Tensor) -> int:
    """Return the bytes of a row of a tile: what decides how large tiles can be."""
    return max(block(q.shape[-1]), block(v.shape[-1])) * v.element_size()


def _tokens(q: Tensor, v: Tensor) -> int:
    """Return R: what fits the registers of a program, or less for short sequences."""
    small = v.element_size() == 2 or _row_bytes(q, v) <= 128
    return 64 if v.shape[-2] > 32 and small else 32


def _constants(q: Tensor, v: Tensor, precision: str, *, keys: bool = False) -> dict[str, object]:
    """Return the constants of a kernel that keeps queries or, with `keys`, keys and values."""
    K, P = q.shape[-1], v.shape[-1]
    R, half, size = _tokens(q, v), v.element_size() == 2, _row_bytes(q, v)
    return {
        "PREC": precision, "K": K, "P": P, "BK": block(K), "BP": block(P),
        "R": R, "N": min(R, 64 if half and size <= (128 if keys else 256) else 32),
        "num_warps": 8 if size >= (256 if keys else 512) else 4, "num_stages": 3 if half else 2,
    }  # fmt: skip


def forward(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, logits: bool, precision: str
) -> tuple[Tensor, Kept]:
    """Return y (B, H, L, P), in v's dtype with the heads of a token together, and what to keep.

    Args:
        q: (B, H, L, K) of v's dtype; the last stride is 1.
        k: as q.
        v: (B, H, L, P), as q.
        gate: (B, H, L) of any strides: log f, or with `logits` what f is the sigmoid of.
        logits: see `gate`.
        precision: how products of float32 round, in Triton's words.
    """
    B, H, L, P = v.shape
    sizes, R = _constants(q, v, precision), _tokens(q, v)
    blocks, scale = triton.cdiv(L, R), _LOG2_E / q.shape[-1] ** 0.5
    within, start, longest = cumulated_gates(gate, k, R, logits)
    log_sums = torch.empty_like(within)
    first = v.new_empty(B, H, blocks, dtype=torch.int32)
    y = v.new_empty(B, L, H, P).transpose(1, 2)
    _forward_kernel[(B * H * blocks,)](
        q, k, v, within, start, longest, first, y, log_sums, *strides(q, k, v, y),
        L, H, blocks, scale, **sizes,
    )  # fmt: skip
    return y, Kept(within, start, first, log_sums)


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    y: Tensor,
    kept: Kept,
    dy: Tensor,
    out: Sequence[Tensor],
    logits: bool,
    precision: str,
) -> None:
    """Write the gradients of q, k, v (last stride 1) and gate, all (B, H, L, ..), into `out`."""
    B, H, L, _ = v.shape
    dq, dk, dv, d_gate = out
    blocks, factor = kept.start.shape[-1], q.shape[-1] ** -0.5
    mean, dc = (torch.empty_like(kept.log_sums) for _ in range(2))
    counts = L, H, blocks, _LOG2_E * factor, factor
    _dq_kernel[(B * H * blocks,)](
        q, k, v, y, dy, *kept, mean, dq, dc, *strides(q, k, v, y, dy, dq), *counts,
        **_constants(q, v, precision),
    )  # fmt: skip
    _dkv_kernel[(B * H * blocks,)](
        q, k, v, dy, *kept, mean, dk, dv, dc, *strides(q, k, v, dy, dk, dv), *counts,
        **_constants(q, v, precision, keys=True),
    )  # fmt: skip
    gate_gradient(dc, gate, d_gate, logits)
