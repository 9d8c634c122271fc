"""Backward kernel of `mechbench.ops.delta_rule`: the formulas of the package's docstring."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.delta_rule.kernels.segments import backs_of, cut, ends_of
from mechbench.ops.delta_rule.kernels.steps import (
    last_rows,
    put_last,
    put_steps,
    step_rows,
    strides_of,
)
from mechbench.ops.kernels.chunks import (
    chunk_of,
    cumulated,
    decays,
    head_at,
    state_at,
    tiles,
)


@triton.jit
def _backward_kernel(
    q, k, v, g, beta, inverses, states, backs, dy, dq, dk, dv, dbeta, dfall,
    qb, qh, qt, kb, kh, kt, ks, vb, vh, vt, vs, gb, gh, gt, bb, bh, bt, yb, yh, yt,
    wb, wh, wt, ws, L, H, K, P, chunks, span,
    MANY: tl.constexpr, N: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store all gradients; goes backward over a segment with the state's gradient R."""
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
    segment = tl.program_id(1)
    start, stop = ends_of(segment, span, chunks, MANY)
    if MANY:
        at = row.to(tl.int64) * tl.num_programs(1) + segment
        place, mask = state_at(backs + at * K * P, K, P, BK, BP)
        back = tl.load(place, mask=mask, other=0.0)
        # A factor of all that later segments start from counts there alone.
        place, mask = state_at(states + (row.to(tl.int64) * chunks + stop) * K * P, K, P, BK, BP)
        state = tl.load(place, mask=mask & (stop < chunks), other=0.0)
        later = tl.sum(tl.sum(state * back, 1), 0)
    for step in range(stop - start):
        n = stop - 1 - step
        t = n * C + i
        at = row.to(tl.int64) * chunks + n
        place, mask = state_at(states + at * K * P, K, P, BK, BP)
        state = tl.load(place, mask=mask, other=0.0)
        fall, end = cumulated(g, t, L, gt, True, C)
        query = last_rows(q, t, L, qt, K, N, BK)
        key = step_rows(k, t, L, kt, ks, K, N, BK)
        value = step_rows(v, t, L, vt, vs, P, N, BP)
        grad = last_rows(dy, t, L, yt, P, N, BP)
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
        put_steps(dv, t, L, wt, ws, P, share * d_told, N, BP)

        d_system = -tl.dot(d_told, tl.trans(written), input_precision=PREC)
        d_system = tl.where(below, d_system * between, 0.0)
        keys = tl.dot(key, tl.trans(key), input_precision=PREC)
        d_share = tl.sum(d_told * new, 1) + tl.sum(d_system * keys, 1)
        tl.store(dbeta + t, d_share, mask=t < L)
        d_system = d_system * share

        d_scores = tl.dot(grad, tl.trans(written), input_precision=PREC) * between
        d_query = tl.dot(d_scores, key, input_precision=PREC)
        d_query += tl.dot(grad * lead, tl.trans(state), input_precision=PREC)
        put_last(dq, t, L, H * K, K, d_query, N, BK)

        reads = tl.dot(d_system, key, input_precision=PREC)
        reads -= tl.dot(d_told * share * lead, tl.trans(state), input_precision=PREC)
        writes = tl.dot(tl.trans(d_scores), query, input_precision=PREC)
        writes += tl.dot(written * rest, tl.trans(back), input_precision=PREC)
        writes += tl.dot(tl.trans(d_system), key, input_precision=PREC)
        put_steps(dk, t, L, H * N * K, K, K, reads + writes, N, BK)
        d_fall = tl.sum(query * d_query, 1) + tl.sum(key * (reads - writes), 1)
        tl.store(dfall + t, tl.cumsum(d_fall, 0, reverse=True) + later, mask=t < L)
        later += tl.sum(d_fall, 0)

        back = back * tl.exp(end) + tl.dot(tl.trans(query * lead), grad, input_precision=PREC)
        back -= tl.dot(tl.trans(key * (share * lead)), d_told, input_precision=PREC)


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    inverses: Tensor,
    states: Tensor,
    turns: Tensor | None,
    dy: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q and k (float32), v (in its dtype), g and beta (float32).

    Args:
        q: (B, H, L, K), as in `forward`; so what follows.
        k: (B, H, L, N, K).
        v: (B, H, L, N, P).
        g: (B, H, L N).
        beta: (B, H, L N).
        inverses: X, from `forward`; so what follows.
        states: S.
        turns: M, or None.
        dy: (B, H, L, P), the last stride 1.
        precision: how products round.
    """
    B, H, L, N, P = v.shape
    K, chunks = q.shape[-1], states.shape[2]
    dq = torch.empty(B, L, H, K, device=v.device, dtype=torch.float32).transpose(1, 2)
    dk = torch.empty(B, L, H, N, K, device=v.device, dtype=torch.float32).transpose(1, 2)
    d_beta, d_fall = (torch.empty(B, H, L * N, device=v.device) for _ in range(2))
    dv = torch.empty(B, L, H, N, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    c = cut(B * H, chunks)
    backs = states
    if turns is not None:
        backs = backs_of(q, k, g, beta, inverses, turns, dy, c, precision)
    _backward_kernel[(B * H, c.segments)](
        q, k, v, g, beta, inverses, states, backs, dy, dq, dk, dv, d_beta, d_fall,
        *strides_of(q, k, v, g, beta, dy, dv),
        L * N, H, K, P, chunks, c.span, MANY=turns is not None, N=N,
        **tiles(q, v, chunk_of(q, v), precision),
    )  # fmt: skip
    return dq, dk, dv, d_fall, d_beta
