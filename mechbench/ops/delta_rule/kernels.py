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

A token may have N steps, each with its own key, value, decay and beta; t and L count steps, and a
token's query belongs to its last. What the queries read is stored for those alone.
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
    state_at,
    tiles,
)


@triton.jit
def _at(base, t, L, token, step, W, N: tl.constexpr, BLOCK: tl.constexpr):
    """Return where steps t of a matrix with W columns lie, and which of them there are."""
    col = tl.arange(0, BLOCK)
    mask = (t < L)[:, None] & (col < W)[None, :]
    if N == 1:
        return base + (t * token)[:, None] + col[None, :], mask
    return base + (t // N * token + t % N * step)[:, None] + col[None, :], mask


@triton.jit
def _rows(base, t, L, token, step, W, N: tl.constexpr, BLOCK: tl.constexpr):
    """Load steps t of a matrix as float32, zeros beyond its end."""
    at, mask = _at(base, t, L, token, step, W, N, BLOCK)
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _put(base, t, L, token, step, W, x, N: tl.constexpr, BLOCK: tl.constexpr):
    """Store steps t of a matrix."""
    at, mask = _at(base, t, L, token, step, W, N, BLOCK)
    tl.store(at, x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _last_rows(base, t, L, token, W, N: tl.constexpr, BLOCK: tl.constexpr):
    """Load what belongs to the last steps of tokens, zeros for the others."""
    at, mask = _at(base, t, L, token, 0, W, N, BLOCK)
    mask &= (t % N == N - 1)[:, None]
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _put_last(base, t, L, token, W, x, N: tl.constexpr, BLOCK: tl.constexpr):
    """Store what belongs to the last steps of tokens."""
    at, mask = _at(base, t, L, token, 0, W, N, BLOCK)
    mask &= (t % N == N - 1)[:, None]
    tl.store(at, x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _inverse_kernel(
    k, g, beta, out, kb, kh, kt, ks, gb, gh, gt, bb, bh, bt, L, H, K, chunks,
    N: tl.constexpr, PREC: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Store X of every chunk, (B, H, chunks, C, C): inverses of blocks of 2, 4, .., C."""
    n, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    k, g, beta = head_at(k, b, h, kb, kh), head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh)
    i = tl.arange(0, C)
    t = n * C + i
    fall, _ = cumulated(g, t, L, gt, True, C)
    key = _rows(k, t, L, kt, ks, K, N, BK)
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
    qb, qh, qt, kb, kh, kt, ks, vb, vh, vt, vs, gb, gh, gt, bb, bh, bt, yb, yh, yt,
    L, H, K, P, chunks,
    N: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
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
        query = _last_rows(q, t, L, qt, K, N, BK)
        key = _rows(k, t, L, kt, ks, K, N, BK)
        value = _rows(v, t, L, vt, vs, P, N, BP)
        share = tl.load(beta + t * bt, mask=t < L, other=0.0).to(tl.float32)
        inverse = tl.load(inverses + at * C * C + square)
        lead = tl.exp(fall)[:, None]
        held = tl.dot(key * lead, state, input_precision=PREC)
        written = tl.dot(inverse, share[:, None] * (value - held), input_precision=PREC)
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * decays(fall, C)
        out = tl.dot(scores, written, input_precision=PREC)
        out += tl.dot(query * lead, state, input_precision=PREC)
        _put_last(y, t, L, yt, P, out, N, BP)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), written, input_precision=PREC
        )


@triton.jit
def _backward_kernel(
    q, k, v, g, beta, inverses, states, dy, dq, dk, dv, dbeta, dfall,
    qb, qh, qt, kb, kh, kt, ks, vb, vh, vt, vs, gb, gh, gt, bb, bh, bt, yb, yh, yt,
    wb, wh, wt, ws, L, H, K, P, chunks,
    N: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store all gradients; goes backward with the state's gradient R."""
    row = tl.program_id(0)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, beta = head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh)
    dy, dv = head_at(dy, b, h, yb, yh), head_at(dv, b, h, wb, wh)
    first = row.to(tl.int64) * L
    token = (b.to(tl.int64) * (L // N) * H + h) * K  # of dq (B, L, H, K); dk (B, L, H, N, K)
    dq, dk, dbeta, dfall = dq + token, dk + token * N, dbeta + first, dfall + first
    i = tl.arange(0, C)
    square = i[:, None] * C + i[None, :]
    below = i[:, None] > i[None, :]
    later = tl.sum(tl.zeros((C,), tl.float32), 0)  # of the gradients of G
    back = tl.zeros((BK, BP), tl.float32)
    for step in range(chunks):
        n = chunks - 1 - step
        t = n * C + i
        at = row.to(tl.int64) * chunks + n
        place, mask = state_at(states + at * K * P, K, P, BK, BP)
        state = tl.load(place, mask=mask, other=0.0)
        fall, end = cumulated(g, t, L, gt, True, C)
        query = _last_rows(q, t, L, qt, K, N, BK)
        key = _rows(k, t, L, kt, ks, K, N, BK)
        value = _rows(v, t, L, vt, vs, P, N, BP)
        grad = _last_rows(dy, t, L, yt, P, N, BP)
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
        _put(dv, t, L, wt, ws, P, share * d_told, N, BP)

        d_system = -tl.dot(d_told, tl.trans(written), input_precision=PREC)
        d_system = tl.where(below, d_system * between, 0.0)
        keys = tl.dot(key, tl.trans(key), input_precision=PREC)
        d_share = tl.sum(d_told * new, 1) + tl.sum(d_system * keys, 1)
        tl.store(dbeta + t, d_share, mask=t < L)
        d_system = d_system * share

        d_scores = tl.dot(grad, tl.trans(written), input_precision=PREC) * between
        d_query = tl.dot(d_scores, key, input_precision=PREC)
        d_query += tl.dot(grad * lead, tl.trans(state), input_precision=PREC)
        _put_last(dq, t, L, H * K, K, d_query, N, BK)

        reads = tl.dot(d_system, key, input_precision=PREC)
        reads -= tl.dot(d_told * share * lead, tl.trans(state), input_precision=PREC)
        writes = tl.dot(tl.trans(d_scores), query, input_precision=PREC)
        writes += tl.dot(written * rest, tl.trans(back), input_precision=PREC)
        writes += tl.dot(tl.trans(d_system), key, input_precision=PREC)
        _put(dk, t, L, H * N * K, K, K, reads + writes, N, BK)
        d_fall = tl.sum(query * d_query, 1) + tl.sum(key * (reads - writes), 1)
        tl.store(dfall + t, tl.cumsum(d_fall, 0, reverse=True) + later, mask=t < L)
        later += tl.sum(d_fall, 0)

        back = back * tl.exp(end) + tl.dot(tl.trans(query * lead), grad, input_precision=PREC)
        back -= tl.dot(tl.trans(key * (share * lead)), d_told, input_precision=PREC)


def _strides(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *rest: Tensor) -> list[int]:
    """Return the strides of batch, head, token and, where there are several, step."""
    counts = (3, 4, 4, 3, 3, 3, 4)
    tensors = (q, k, v, g, beta, *rest)
    return [s for x, n in zip(tensors, counts, strict=False) for s in x.stride()[:n]]


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute y, and what the backward needs: the inverses and the chunks' states.

    Args:
        q: (B, H, L, K), the last stride 1; so k and v.
        k: (B, H, L, N, K), N steps a token.
        v: (B, H, L, N, P).
        g: (B, H, L N), at most 0, of any strides.
        beta: (B, H, L N), of any strides.
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy; X (B, H,
        chunks, C, C) and S (B, H, chunks, K, P), float32.
    """
    B, H, L, N, P = v.shape
    K, C = q.shape[-1], chunk_of(q, v)
    chunks = triton.cdiv(L * N, C)
    inverses = torch.empty(B, H, chunks, C, C, device=v.device, dtype=torch.float32)
    _inverse_kernel[(chunks, B * H)](
        k, g, beta, inverses, *k.stride()[:4], *g.stride(), *beta.stride(), L * N, H, K, chunks,
        N=N, PREC=precision, LEVELS=C.bit_length() - 1, C=C, BK=block(K), num_warps=4,
    )  # fmt: skip
    states = torch.empty(B, H, chunks, K, P, device=v.device, dtype=torch.float32)
    y = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _forward_kernel[(B * H,)](
        q, k, v, g, beta, inverses, states, y, *_strides(q, k, v, g, beta, y),
        L * N, H, K, P, chunks, N=N, **tiles(q, v, C, precision),
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
    B, H, L, N, P = v.shape
    K, chunks = q.shape[-1], states.shape[2]
    dq = torch.empty(B, L, H, K, device=v.device, dtype=torch.float32).transpose(1, 2)
    dk = torch.empty(B, L, H, N, K, device=v.device, dtype=torch.float32).transpose(1, 2)
    d_beta, d_fall = (torch.empty(B, H, L * N, device=v.device) for _ in range(2))
    dv = torch.empty(B, L, H, N, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _backward_kernel[(B * H,)](
        q, k, v, g, beta, inverses, states, dy, dq, dk, dv, d_beta, d_fall,
        *_strides(q, k, v, g, beta, dy, dv),
        L * N, H, K, P, chunks, N=N, **tiles(q, v, chunk_of(q, v), precision),
    )  # fmt: skip
    return dq, dk, dv, d_fall, d_beta
