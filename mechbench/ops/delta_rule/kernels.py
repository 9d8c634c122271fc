"""Fused kernels of `mechbench.ops.delta_rule`: a pass over the sequence that keeps the state.

The triangular systems of all chunks are inverted first, side by side; then a program walks over the
chunks of a head with the state S (K, P) in registers. With G the cumulated log decays of a chunk,
D_ts = exp(G_t - G_s) for s <= t, X = (I + T)^-1, and R the gradient of the state after the chunk:

    z = beta (v - exp(G) k S),   w = X z
    y = (q k^T * D) w + exp(G) q S            S <- exp(G_C) S + (exp(G_C - G) k)^T w
    dw = (q k^T * D)^T dy + exp(G_C - G) k R,   dz = X^T dw,   dT = -dz w^T below the diagonal
    R <- exp(G_C) R + (exp(G) q)^T dy - (beta exp(G) k)^T dz

A key reads, in T and z, with a factor exp(G_t), and is written with exp(-G_s); so the gradient of
G_t over the whole sequence is q_t . dq_t + k_t . (dk_t as read) - k_t . (dk_t as written).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import (
    block,
    chunk_of,
    cumulated,
    decays,
    head_at,
    put,
    rows,
    state_at,
    strides,
    tiles,
)


@triton.jit
def _inverse_kernel(
    k, g, beta, out, kb, kh, kt, gb, gh, gt, bb, bh, bt, L, H, K, chunks,
    PREC: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Store X of every chunk, (B, H, chunks, C, C): inverses of blocks of 2, 4, .., C."""
    n, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    k, g, beta = head_at(k, b, h, kb, kh), head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh)
    i = tl.arange(0, C)
    t = n * C + i
    fall, _ = cumulated(g, t, L, gt, True, C)
    key = rows(k, t, L, kt, K, BK)
    share = tl.load(beta + t * bt, mask=t < L, other=0.0).to(tl.float32)
    # Rounded as float32: what is lost in T is lost in every later token of the chunk.
    scores = tl.dot(key, tl.trans(key), input_precision="tf32x3")
    system = tl.where(i[:, None] > i[None, :], share[:, None] * scores * decays(fall, C), 0.0)
    inverse = tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    for level in tl.static_range(LEVELS):
        # Blocks of twice the size: [[A, 0], [N, B]] has the inverse [[A', 0], [-B' N A', B']].
        size = 1 << level
        lower = (i[:, None] // size == i[None, :] // size + 1) & (i[:, None] // size % 2 == 1)
        part = tl.where(lower, system, 0.0)
        if level > 0:
            part = tl.dot(inverse, part, input_precision=PREC)
            part = tl.dot(part, inverse, input_precision=PREC)
        inverse -= part
    place = out + (row.to(tl.int64) * chunks + n) * C * C
    tl.store(place + i[:, None] * C + i[None, :], inverse)


@triton.jit
def _forward_kernel(
    q, k, v, g, beta, inverses, states, y,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, bb, bh, bt, yb, yh, yt, L, H, K, P, chunks,
    PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store y, and the state that each chunk starts from."""
    row = tl.program_id(0)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, beta, y = head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh), head_at(y, b, h, yb, yh)
    i = tl.arange(0, C)
    square = i[:, None] * C + i[None, :]
    state = tl.zeros((BK, BP), tl.float32)
    for n in range(chunks):
        t = n * C + i
        at = row.to(tl.int64) * chunks + n
        place, mask = state_at(states + at * K * P, K, P, BK, BP)
        tl.store(place, state, mask=mask)
        fall, end = cumulated(g, t, L, gt, True, C)
        query, key = rows(q, t, L, qt, K, BK), rows(k, t, L, kt, K, BK)
        value = rows(v, t, L, vt, P, BP)
        share = tl.load(beta + t * bt, mask=t < L, other=0.0).to(tl.float32)
        inverse = tl.load(inverses + at * C * C + square)
        lead = tl.exp(fall)[:, None]
        held = tl.dot(key * lead, state, input_precision=PREC)
        written = tl.dot(inverse, share[:, None] * (value - held), input_precision=PREC)
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * decays(fall, C)
        out = tl.dot(scores, written, input_precision=PREC)
        out += tl.dot(query * lead, state, input_precision=PREC)
        put(y, t, L, yt, P, out, BP)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), written, input_precision=PREC
        )


@triton.jit
def _backward_kernel(
    q, k, v, g, beta, inverses, states, dy, dq, dk, dv, dbeta, dfall,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, bb, bh, bt, yb, yh, yt, wb, wh, wt,
    L, H, K, P, chunks,
    PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store all gradients; goes backward with the state's gradient R."""
    row = tl.program_id(0)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, beta = head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh)
    dy, dv = head_at(dy, b, h, yb, yh), head_at(dv, b, h, wb, wh)
    first = row.to(tl.int64) * L
    dq, dk, dbeta, dfall = dq + first * K, dk + first * K, dbeta + first, dfall + first
    i = tl.arange(0, C)
    square = i[:, None] * C + i[None, :]
    below = i[:, None] > i[None, :]
    back = tl.zeros((BK, BP), tl.float32)
    for step in range(chunks):
        n = chunks - 1 - step
        t = n * C + i
        at = row.to(tl.int64) * chunks + n
        place, mask = state_at(states + at * K * P, K, P, BK, BP)
        state = tl.load(place, mask=mask, other=0.0)
        fall, end = cumulated(g, t, L, gt, True, C)
        query, key = rows(q, t, L, qt, K, BK), rows(k, t, L, kt, K, BK)
        value, grad = rows(v, t, L, vt, P, BP), rows(dy, t, L, yt, P, BP)
        share = tl.load(beta + t * bt, mask=t < L, other=0.0).to(tl.float32)[:, None]
        inverse = tl.load(inverses + at * C * C + square)
        lead, rest = tl.exp(fall)[:, None], tl.exp(end - fall)[:, None]
        between = decays(fall, C)
        new = value - tl.dot(key * lead, state, input_precision=PREC)
        written = tl.dot(inverse, share * new, input_precision=PREC)
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * between
        d_written = tl.dot(tl.trans(scores), grad, input_precision=PREC)
        d_written += tl.dot(key * rest, back, input_precision=PREC)
        d_told = tl.dot(tl.trans(inverse), d_written, input_precision=PREC)
        put(dv, t, L, wt, P, share * d_told, BP)

        d_system = -tl.dot(d_told, tl.trans(written), input_precision=PREC)
        d_system = tl.where(below, d_system * between, 0.0)
        keys = tl.dot(key, tl.trans(key), input_precision=PREC)
        d_share = tl.sum(d_told * new, 1) + tl.sum(d_system * keys, 1)
        tl.store(dbeta + t, d_share, mask=t < L)
        d_system = d_system * share

        d_scores = tl.dot(grad, tl.trans(written), input_precision=PREC) * between
        d_query = tl.dot(d_scores, key, input_precision=PREC)
        d_query += tl.dot(grad * lead, tl.trans(state), input_precision=PREC)
        put(dq, t, L, K, K, d_query, BK)

        reads = tl.dot(d_system, key, input_precision=PREC)
        reads -= tl.dot(d_told * share * lead, tl.trans(state), input_precision=PREC)
        writes = tl.dot(tl.trans(d_scores), query, input_precision=PREC)
        writes += tl.dot(written * rest, tl.trans(back), input_precision=PREC)
        writes += tl.dot(tl.trans(d_system), key, input_precision=PREC)
        put(dk, t, L, K, K, reads + writes, BK)
        d_fall = tl.sum(query * d_query, 1) + tl.sum(key * (reads - writes), 1)
        tl.store(dfall + t, d_fall, mask=t < L)

        back = back * tl.exp(end) + tl.dot(tl.trans(query * lead), grad, input_precision=PREC)
        back -= tl.dot(tl.trans(key * (share * lead)), d_told, input_precision=PREC)


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute y, and what the backward needs: the inverses and the chunks' states.

    Args:
        q: (B, H, L, K), the last stride 1; so k and v.
        k: (B, H, L, K).
        v: (B, H, L, P).
        g: (B, H, L), at most 0, of any strides.
        beta: (B, H, L), of any strides.
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy; X (B, H,
        chunks, C, C) and S (B, H, chunks, K, P), float32.
    """
    B, H, L, P = v.shape
    K, C = q.shape[-1], chunk_of(q, v)
    chunks = triton.cdiv(L, C)
    inverses = torch.empty(B, H, chunks, C, C, device=v.device, dtype=torch.float32)
    _inverse_kernel[(chunks, B * H)](
        k, g, beta, inverses, *strides(k, g, beta), L, H, K, chunks,
        PREC=precision, LEVELS=C.bit_length() - 1, C=C, BK=block(K), num_warps=4,
    )  # fmt: skip
    states = torch.empty(B, H, chunks, K, P, device=v.device, dtype=torch.float32)
    y = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _forward_kernel[(B * H,)](
        q, k, v, g, beta, inverses, states, y, *strides(q, k, v, g, beta, y),
        L, H, K, P, chunks, **tiles(q, v, chunk_of(q, v), precision),
    )  # fmt: skip
    return y, inverses, states


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    inverses: Tensor,
    states: Tensor,
    dy: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q and k (float32), v (in its dtype), g and beta (float32)."""
    B, H, L, P = v.shape
    K, chunks = q.shape[-1], states.shape[2]
    dq, dk = (torch.empty(B, H, L, K, device=v.device, dtype=torch.float32) for _ in range(2))
    d_beta, d_fall = (torch.empty(B, H, L, device=v.device) for _ in range(2))
    dv = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _backward_kernel[(B * H,)](
        q, k, v, g, beta, inverses, states, dy, dq, dk, dv, d_beta, d_fall,
        *strides(q, k, v, g, beta, dy, dv), L, H, K, P, chunks,
        **tiles(q, v, chunk_of(q, v), precision),
    )  # fmt: skip
    return dq, dk, dv, d_fall.flip(-1).cumsum(-1).flip(-1), d_beta
