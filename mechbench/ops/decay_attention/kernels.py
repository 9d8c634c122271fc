"""Fused kernels of `mechbench.ops.decay_attention`: a pass over the sequence that keeps the state.

A program walks over the chunks of a segment of one head, with the state S (K, P) in registers, so
that queries, keys and values are read once and outputs written once. Where heads are few, a
sequence is cut into several segments, whose own states are found first and scanned.

With G the cumulated log decays of a chunk, D_ts = exp(G_t - G_s) for s <= t, and R the gradient of
the state after the chunk:

    y  = (q k^T * D) v + exp(G) q S            S <- exp(G_C) S + (exp(G_C - G) k)^T v
    dq = (dy v^T * D) k + exp(G) dy S^T
    dk = (dy v^T * D)^T q + exp(G_C - G) v R^T
    dv = (q k^T * D)^T dy + exp(G_C - G) k R   R <- exp(G_C) R + (exp(G) q)^T dy

The gradient of G_t over the whole sequence is q_t . dq_t - k_t . dk_t, because scaling exp(G_t) is
scaling q_t up and k_t down.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.affine_scan import affine_scan, before
from mechbench.ops.kernels.chunks import (
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

_PROGRAMS = 132  # enough to fill a GPU


class Plan(NamedTuple):
    """How a call is cut up: tokens a chunk, chunks a segment, segments; and how products round."""

    chunk: int
    per_segment: int
    segments: int
    precision: str


def plan(q: Tensor, v: Tensor, precision: str) -> Plan:
    """Return the plan for q (B, H, L, K) and v (B, H, L, P)."""
    B, H, L, _ = v.shape
    chunk = chunk_of(q, v)
    chunks = triton.cdiv(L, chunk)
    wanted = max(1, min(chunks, _PROGRAMS // (B * H)))
    per_segment = triton.cdiv(chunks, wanted)
    return Plan(chunk, per_segment, triton.cdiv(chunks, per_segment), precision)


@triton.jit
def _states_kernel(
    k, v, g, out, kb, kh, kt, vb, vh, vt, gb, gh, gt, L, H, K, P, N, segments,
    HAS_G: tl.constexpr, REVERSE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store the state that each segment adds; in reverse, the gradient R that it sends back."""
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    k, v, g = head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh), head_at(g, b, h, gb, gh)
    state = tl.zeros((BK, BP), tl.float32)
    for i in range(N):
        n = segment * N + (N - 1 - i if REVERSE else i)
        t = n * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        key, value = rows(k, t, L, kt, K, BK), rows(v, t, L, vt, P, BP)
        weight = fall if REVERSE else end - fall
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(weight)[:, None]), value, input_precision=PREC
        )
    place = out + (row.to(tl.int64) * segments + segment) * K * P
    at, mask = state_at(place, K, P, BK, BP)
    tl.store(at, state, mask=mask)


@triton.jit
def _forward_kernel(
    q, k, v, g, states, y, qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, yb, yh, yt,
    L, H, K, P, N, segments,
    HAS_G: tl.constexpr, HAS_STATE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, y = head_at(g, b, h, gb, gh), head_at(y, b, h, yb, yh)
    state = tl.zeros((BK, BP), tl.float32)
    if HAS_STATE:
        at, mask = state_at(states + (row.to(tl.int64) * segments + segment) * K * P, K, P, BK, BP)
        state = tl.load(at, mask=mask, other=0.0)
    for i in range(N):
        t = (segment * N + i) * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        query, key = rows(q, t, L, qt, K, BK), rows(k, t, L, kt, K, BK)
        value = rows(v, t, L, vt, P, BP)
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * decays(fall, C)
        out = tl.dot(scores, value, input_precision=PREC)
        out += tl.dot(query * tl.exp(fall)[:, None], state, input_precision=PREC)
        put(y, t, L, yt, P, out, BP)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), value, input_precision=PREC
        )


@triton.jit
def _dq_kernel(
    q, k, v, g, states, dy, dq, dg, qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, yb, yh, yt,
    L, H, K, P, N, segments,
    HAS_G: tl.constexpr, NEED_G: tl.constexpr, HAS_STATE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store dq (B, H, L, K) and, in dg (B, H, L), q . dq; goes forward with the state."""
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, dy = head_at(g, b, h, gb, gh), head_at(dy, b, h, yb, yh)
    dq, dg = dq + row.to(tl.int64) * L * K, dg + row.to(tl.int64) * L
    state = tl.zeros((BK, BP), tl.float32)
    if HAS_STATE:
        at, mask = state_at(states + (row.to(tl.int64) * segments + segment) * K * P, K, P, BK, BP)
        state = tl.load(at, mask=mask, other=0.0)
    for i in range(N):
        t = (segment * N + i) * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        key, value = rows(k, t, L, kt, K, BK), rows(v, t, L, vt, P, BP)
        grad = rows(dy, t, L, yt, P, BP)
        d_scores = tl.dot(grad, tl.trans(value), input_precision=PREC) * decays(fall, C)
        d_query = tl.dot(d_scores, key, input_precision=PREC)
        d_query += tl.dot(grad * tl.exp(fall)[:, None], tl.trans(state), input_precision=PREC)
        put(dq, t, L, K, K, d_query, BK)
        if NEED_G:
            query = rows(q, t, L, qt, K, BK)
            tl.store(dg + t, tl.sum(query * d_query, 1), mask=t < L)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), value, input_precision=PREC
        )


@triton.jit
def _dkv_kernel(
    q, k, v, g, states, dy, dk, dv, dg, qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt,
    yb, yh, yt, wb, wh, wt, L, H, K, P, N, segments,
    HAS_G: tl.constexpr, NEED_G: tl.constexpr, HAS_STATE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store dk and dv, and subtract k . dk from dg; goes backward with the state's gradient."""
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, dy, dv = head_at(g, b, h, gb, gh), head_at(dy, b, h, yb, yh), head_at(dv, b, h, wb, wh)
    dk, dg = dk + row.to(tl.int64) * L * K, dg + row.to(tl.int64) * L
    back = tl.zeros((BK, BP), tl.float32)
    if HAS_STATE:
        at, mask = state_at(states + (row.to(tl.int64) * segments + segment) * K * P, K, P, BK, BP)
        back = tl.load(at, mask=mask, other=0.0)
    for i in range(N):
        t = (segment * N + N - 1 - i) * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        query, key = rows(q, t, L, qt, K, BK), rows(k, t, L, kt, K, BK)
        value, grad = rows(v, t, L, vt, P, BP), rows(dy, t, L, yt, P, BP)
        between = decays(fall, C)
        rest = tl.exp(end - fall)[:, None]
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * between
        d_value = tl.dot(tl.trans(scores), grad, input_precision=PREC)
        d_value += tl.dot(key * rest, back, input_precision=PREC)
        put(dv, t, L, wt, P, d_value, BP)
        d_scores = tl.dot(grad, tl.trans(value), input_precision=PREC) * between
        d_key = tl.dot(tl.trans(d_scores), query, input_precision=PREC)
        d_key += tl.dot(value * rest, tl.trans(back), input_precision=PREC)
        put(dk, t, L, K, K, d_key, BK)
        if NEED_G:
            now = tl.load(dg + t, mask=t < L, other=0.0)
            tl.store(dg + t, now - tl.sum(key * d_key, 1), mask=t < L)
        back = back * tl.exp(end) + tl.dot(
            tl.trans(query * tl.exp(fall)[:, None]), grad, input_precision=PREC
        )


def _segment_states(
    k: Tensor, v: Tensor, g: Tensor | None, p: Plan, *, reverse: bool = False
) -> Tensor | None:
    """Return the states that segments start from, (B, H, segments, K, P); None if all are 0.

    In reverse, the gradients of the states that they end with.
    """
    if p.segments == 1:
        return None
    B, H, L, P = v.shape
    K = k.shape[-1]
    added = torch.empty(B, H, p.segments, K, P, device=v.device, dtype=torch.float32)
    _states_kernel[(p.segments, B * H)](
        k, v, k if g is None else g, added, *strides(k, v, g),
        L, H, K, P, p.per_segment, p.segments,
        HAS_G=g is not None, REVERSE=reverse, **tiles(k, v, p.chunk, p.precision),
    )  # fmt: skip
    tokens = p.chunk * p.per_segment
    if g is None:
        factor = added.new_ones(1, 1, p.segments, 1, 1)
    else:
        steps = torch.nn.functional.pad(g.float(), (0, p.segments * tokens - L))
        factor = steps.unflatten(-1, (p.segments, tokens)).sum(-1).exp()[..., None, None]
    if reverse:
        added, factor = added.flip(2), factor.flip(2)
    states = before(affine_scan(factor, added), p.segments)
    return (states.flip(2) if reverse else states).contiguous()


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, precision: str
) -> tuple[Tensor, Tensor | None]:
    """Compute y, and the states that segments start from.

    Args:
        q: (B, H, L, K), the last stride 1; so k and v.
        k: (B, H, L, K).
        v: (B, H, L, P).
        g: (B, H, L), at most 0, of any strides; None for no decay.
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy, and the states
        (B, H, segments, K, P) or None.
    """
    p = plan(q, v, precision)
    B, H, L, P = v.shape
    states = _segment_states(k, v, g, p)
    y = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _forward_kernel[(p.segments, B * H)](
        q, k, v, q if g is None else g, q if states is None else states, y,
        *strides(q, k, v, g, y), L, H, q.shape[-1], P, p.per_segment, p.segments,
        HAS_G=g is not None, HAS_STATE=states is not None, **tiles(q, v, p.chunk, p.precision),
    )  # fmt: skip
    return y, states


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    states: Tensor | None,
    dy: Tensor,
    precision: str,
    need_g: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k (float32), v (in its dtype) and, if needed, g (float32)."""
    p = plan(q, v, precision)
    B, H, L, P = v.shape
    K = q.shape[-1]
    dq, dk = (torch.empty(B, H, L, K, device=v.device, dtype=torch.float32) for _ in range(2))
    dv = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    d_fall = torch.empty((B, H, L) if need_g else (1,), device=v.device, dtype=torch.float32)
    back = _segment_states(q, dy, g, p, reverse=True)
    sizes = {"HAS_G": g is not None, "NEED_G": need_g, **tiles(q, v, p.chunk, p.precision)}
    counts = (L, H, K, P, p.per_segment, p.segments)
    grid, decay = (p.segments, B * H), q if g is None else g
    _dq_kernel[grid](
        q, k, v, decay, q if states is None else states, dy, dq, d_fall,
        *strides(q, k, v, g, dy), *counts, HAS_STATE=states is not None, **sizes,
    )  # fmt: skip
    _dkv_kernel[grid](
        q, k, v, decay, q if back is None else back, dy, dk, dv, d_fall,
        *strides(q, k, v, g, dy, dv), *counts, HAS_STATE=back is not None, **sizes,
    )  # fmt: skip
    if not need_g:
        return dq, dk, dv, None
    return dq, dk, dv, d_fall.flip(-1).cumsum(-1).flip(-1)
