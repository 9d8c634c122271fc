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
scaling q_t up and k_t down. Values are multiplied by w where they are loaded, and dv by it where it
is stored; a skip adds its share to y and dv there.
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

    def tiles(self, q: Tensor, v: Tensor) -> dict[str, object]:
        """Return the constants of a kernel: more warps for a wide state, for a program fills an SM.

        A warp that waits leaves its processor idle where there is no other.
        """
        wide = max(q.shape[-1], v.shape[-1]) > 64
        return tiles(q, v, self.chunk, self.precision) | {"num_warps": 8 if wide else 4}


def plan(q: Tensor, v: Tensor, precision: str) -> Plan:
    """Return the plan for q (B, H, L, K) and v (B, H, L, P)."""
    B, H, L, _ = v.shape
    chunk = chunk_of(q, v)
    chunks = triton.cdiv(L, chunk)
    wanted = max(1, min(chunks, _PROGRAMS // (B * H)))
    per_segment = triton.cdiv(chunks, wanted)
    return Plan(chunk, per_segment, triton.cdiv(chunks, per_segment), precision)


@triton.jit
def _scaled(value, w, t, L, stride, HAS_W: tl.constexpr):
    if HAS_W:
        value *= tl.load(w + t * stride, mask=t < L, other=0.0).to(tl.float32)[:, None]
    return value


@triton.jit
def _states_kernel(
    k, v, g, w, out, kb, kh, kt, vb, vh, vt, gb, gh, gt, sb, sh, st, L, H, K, P, N, segments,
    HAS_G: tl.constexpr, HAS_W: tl.constexpr, REVERSE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store the state that each segment adds; in reverse, the gradient R that it sends back."""
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    k, v, g = head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh), head_at(g, b, h, gb, gh)
    w = head_at(w, b, h, sb, sh)
    state = tl.zeros((BK, BP), tl.float32)
    for i in range(N):
        n = segment * N + (N - 1 - i if REVERSE else i)
        t = n * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        key = rows(k, t, L, kt, K, BK)
        value = _scaled(rows(v, t, L, vt, P, BP), w, t, L, st, HAS_W)
        weight = fall if REVERSE else end - fall
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(weight)[:, None]), value, input_precision=PREC
        )
    place = out + (row.to(tl.int64) * segments + segment) * K * P
    at, mask = state_at(place, K, P, BK, BP)
    tl.store(at, state, mask=mask)


@triton.jit
def _forward_kernel(
    q, k, v, g, w, skip, states, y,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, sb, sh, st, yb, yh, yt,
    L, H, K, P, N, segments,
    HAS_G: tl.constexpr, HAS_W: tl.constexpr, HAS_SKIP: tl.constexpr,
    HAS_STATE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, w, y = head_at(g, b, h, gb, gh), head_at(w, b, h, sb, sh), head_at(y, b, h, yb, yh)
    past = tl.load(skip + h).to(tl.float32) if HAS_SKIP else 0.0
    state = tl.zeros((BK, BP), tl.float32)
    if HAS_STATE:
        at, mask = state_at(states + (row.to(tl.int64) * segments + segment) * K * P, K, P, BK, BP)
        state = tl.load(at, mask=mask, other=0.0)
    for i in range(N):
        t = (segment * N + i) * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        query, key = rows(q, t, L, qt, K, BK), rows(k, t, L, kt, K, BK)
        raw = rows(v, t, L, vt, P, BP)
        value = _scaled(raw, w, t, L, st, HAS_W)
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * decays(fall, C)
        out = tl.dot(scores, value, input_precision=PREC)
        out += tl.dot(query * tl.exp(fall)[:, None], state, input_precision=PREC)
        if HAS_SKIP:
            out += past * raw
        put(y, t, L, yt, P, out, BP)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), value, input_precision=PREC
        )


@triton.jit
def _dq_kernel(
    q, k, v, g, w, states, dy, dq, dg,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, sb, sh, st, yb, yh, yt,
    L, H, K, P, N, segments,
    HAS_G: tl.constexpr, HAS_W: tl.constexpr, NEED_G: tl.constexpr,
    HAS_STATE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store dq (B, L, H, K) and, in dg (B, H, L), q . dq; goes forward with the state."""
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, w, dy = head_at(g, b, h, gb, gh), head_at(w, b, h, sb, sh), head_at(dy, b, h, yb, yh)
    dq, dg = dq + (b.to(tl.int64) * L * H + h) * K, dg + row.to(tl.int64) * L
    state = tl.zeros((BK, BP), tl.float32)
    if HAS_STATE:
        at, mask = state_at(states + (row.to(tl.int64) * segments + segment) * K * P, K, P, BK, BP)
        state = tl.load(at, mask=mask, other=0.0)
    for i in range(N):
        t = (segment * N + i) * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        key = rows(k, t, L, kt, K, BK)
        value = _scaled(rows(v, t, L, vt, P, BP), w, t, L, st, HAS_W)
        grad = rows(dy, t, L, yt, P, BP)
        d_scores = tl.dot(grad, tl.trans(value), input_precision=PREC) * decays(fall, C)
        d_query = tl.dot(d_scores, key, input_precision=PREC)
        d_query += tl.dot(grad * tl.exp(fall)[:, None], tl.trans(state), input_precision=PREC)
        put(dq, t, L, H * K, K, d_query, BK)
        if NEED_G:
            query = rows(q, t, L, qt, K, BK)
            tl.store(dg + t, tl.sum(query * d_query, 1), mask=t < L)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), value, input_precision=PREC
        )


@triton.jit
def _dkv_kernel(
    q, k, v, g, w, skip, states, dy, dk, dv, dg, dw, dskip,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, sb, sh, st, yb, yh, yt, wb, wh, wt,
    L, H, K, P, N, segments,
    HAS_G: tl.constexpr, HAS_W: tl.constexpr, HAS_SKIP: tl.constexpr, NEED_G: tl.constexpr,
    HAS_STATE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store dk (B, L, H, K), dv, dw, and subtract k . dk from dg; goes backward with R.

    Where there is one segment, dg is summed from the end. `dskip` takes a sum a program.
    """
    segment, row = tl.program_id(0), tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, dy, dv = head_at(g, b, h, gb, gh), head_at(dy, b, h, yb, yh), head_at(dv, b, h, wb, wh)
    w, dw = head_at(w, b, h, sb, sh), dw + row.to(tl.int64) * L
    dk, dg = dk + (b.to(tl.int64) * L * H + h) * K, dg + row.to(tl.int64) * L
    past = tl.load(skip + h).to(tl.float32) if HAS_SKIP else 0.0
    of_skip = tl.zeros((C,), tl.float32)
    later = tl.sum(of_skip, 0)  # of the gradients of G
    back = tl.zeros((BK, BP), tl.float32)
    if HAS_STATE:
        at, mask = state_at(states + (row.to(tl.int64) * segments + segment) * K * P, K, P, BK, BP)
        back = tl.load(at, mask=mask, other=0.0)
    for i in range(N):
        t = (segment * N + N - 1 - i) * C + tl.arange(0, C)
        fall, end = cumulated(g, t, L, gt, HAS_G, C)
        query, key = rows(q, t, L, qt, K, BK), rows(k, t, L, kt, K, BK)
        raw, grad = rows(v, t, L, vt, P, BP), rows(dy, t, L, yt, P, BP)
        value = _scaled(raw, w, t, L, st, HAS_W)
        between = decays(fall, C)
        rest = tl.exp(end - fall)[:, None]
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * between
        d_value = tl.dot(tl.trans(scores), grad, input_precision=PREC)
        d_value += tl.dot(key * rest, back, input_precision=PREC)
        if HAS_W:
            tl.store(dw + t, tl.sum(raw * d_value, 1), mask=t < L)
            d_value = _scaled(d_value, w, t, L, st, HAS_W)
        if HAS_SKIP:
            of_skip += tl.sum(raw * grad, 1)
            d_value += past * grad
        put(dv, t, L, wt, P, d_value, BP)
        d_scores = tl.dot(grad, tl.trans(value), input_precision=PREC) * between
        d_key = tl.dot(tl.trans(d_scores), query, input_precision=PREC)
        d_key += tl.dot(value * rest, tl.trans(back), input_precision=PREC)
        put(dk, t, L, H * K, K, d_key, BK)
        if NEED_G:
            now = tl.load(dg + t, mask=t < L, other=0.0) - tl.sum(key * d_key, 1)
            if not HAS_STATE:
                last = tl.sum(now, 0)
                now = tl.cumsum(now, 0, reverse=True) + later
                later += last
            tl.store(dg + t, now, mask=t < L)
        back = back * tl.exp(end) + tl.dot(
            tl.trans(query * tl.exp(fall)[:, None]), grad, input_precision=PREC
        )
    if HAS_SKIP:
        tl.store(dskip + row * segments + segment, tl.sum(of_skip, 0))


def _segment_states(
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    w: Tensor | None,
    p: Plan,
    *,
    reverse: bool = False,
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
        k, v, k if g is None else g, k if w is None else w, added, *strides(k, v, g, w),
        L, H, K, P, p.per_segment, p.segments,
        HAS_G=g is not None, HAS_W=w is not None, REVERSE=reverse, **p.tiles(k, v),
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
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    w: Tensor | None,
    skip: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor | None]:
    """Compute y, and the states that segments start from.

    Args:
        q: (B, H, L, K), the last stride 1; so k and v.
        k: (B, H, L, K).
        v: (B, H, L, P).
        g: (B, H, L), at most 0, of any strides; None for no decay.
        w: (B, H, L), of any strides; None for 1.
        skip: (H,), contiguous; None for 0.
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy, and the states
        (B, H, segments, K, P) or None.
    """
    p = plan(q, v, precision)
    B, H, L, P = v.shape
    states = _segment_states(k, v, g, w, p)
    y = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _forward_kernel[(p.segments, B * H)](
        q, k, v, *(q if x is None else x for x in (g, w, skip, states)), y,
        *strides(q, k, v, g, w, y), L, H, q.shape[-1], P, p.per_segment, p.segments,
        HAS_G=g is not None, HAS_W=w is not None, HAS_SKIP=skip is not None,
        HAS_STATE=states is not None, **p.tiles(q, v),
    )  # fmt: skip
    return y, states


class Gradients(NamedTuple):
    """Of q and k, (B, H, L, K) and in their dtype, v in its own; of g, w and skip, float32."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None
    w: Tensor | None
    skip: Tensor | None


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    w: Tensor | None,
    skip: Tensor | None,
    states: Tensor | None,
    dy: Tensor,
    precision: str,
    need_g: bool,
) -> Gradients:
    """Return the gradients, that of g only if needed."""
    p = plan(q, v, precision)
    B, H, L, P = v.shape
    K = q.shape[-1]

    def like(x: Tensor) -> Tensor:
        return torch.empty(B, L, H, x.shape[-1], device=x.device, dtype=x.dtype)

    def sums(wanted: bool, *shape: int) -> Tensor:
        size = shape if wanted else (1,)
        return torch.empty(size, device=v.device, dtype=torch.float32)

    dq, dk, dv = like(q), like(k), like(v).transpose(1, 2)
    d_fall, dw = sums(need_g, B, H, L), sums(w is not None, B, H, L)
    dskip = sums(skip is not None, B, H, p.segments)
    back = _segment_states(q, dy, g, None, p, reverse=True)
    sizes = {
        "HAS_G": g is not None, "HAS_W": w is not None, "NEED_G": need_g,
        **p.tiles(q, v),
    }  # fmt: skip
    counts = (L, H, K, P, p.per_segment, p.segments)
    grid = (p.segments, B * H)
    _dq_kernel[grid](
        q, k, v, *(q if x is None else x for x in (g, w, states)), dy, dq, d_fall,
        *strides(q, k, v, g, w, dy), *counts, HAS_STATE=states is not None, **sizes,
    )  # fmt: skip
    _dkv_kernel[grid](
        q, k, v, *(q if x is None else x for x in (g, w, skip, back)), dy,
        dk, dv, d_fall, dw, dskip, *strides(q, k, v, g, w, dy, dv), *counts,
        HAS_SKIP=skip is not None, HAS_STATE=back is not None, **sizes,
    )  # fmt: skip
    if back is not None and need_g:
        d_fall = d_fall.flip(-1).cumsum(-1).flip(-1)
    return Gradients(
        dq.transpose(1, 2),
        dk.transpose(1, 2),
        dv,
        d_fall if need_g else None,
        None if w is None else dw,
        None if skip is None else dskip.sum((0, 2)),
    )
