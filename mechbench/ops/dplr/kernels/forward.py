"""Forward kernels of `mechbench.ops.dplr`, and what they keep for the backward."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.affine_scan import affine_scan, before
from mechbench.ops.dplr.kernels.levels import FIRST, factors, remaining, sources, together
from mechbench.ops.kernels.chunks import block, head_at, put, rows, state_at, strides

CHUNK, LEVELS = 32, 5  # tokens of a chunk, a power of 2
# Channels that a program takes at a time, and its warps: registers are what there is least of.
SLICE, WARPS = 16, 2
_PROGRAMS = 132  # enough to fill a GPU
_LEAST = 16  # chunks of a segment


class Chunks(NamedTuple):
    """What a call computes of its chunks, float32, with (B * H, chunks) in front."""

    falls: Tensor  # (.., C + 1, K), cumulated log decays: before each token, and at the end
    solved: Tensor  # X, (.., C, C)
    told: Tensor  # M, (.., C, C); not kept if it is X
    y_b: Tensor  # A^qb, (.., C, C)
    y_v: Tensor  # Y, (.., C, C)
    moved: Tensor  # W, (.., C, K)
    y_state: Tensor  # Q, (.., C, K)
    kept: Tensor  # N, (.., C, K)
    change: Tensor  # F, (.., K, K)


@triton.jit
def _falls_kernel(
    g, falls, gb, gh, gt, L, H, K, chunks, C: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    n, row = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, C)
    step = rows(head_at(g, row // H, row % H, gb, gh), n * C + i, L, gt, K, BK)
    # Powers of 2, at least the last place of what decays: see `levels`.
    step = tl.maximum(step * 1.4426950408889634, -25.0, propagate_nan=tl.PropagateNan.ALL)
    fall = tl.cumsum(step, 0)
    falls += (row.to(tl.int64) * chunks + n) * (C + 1) * K
    col = tl.arange(0, BK)
    tl.store(falls + col, tl.zeros((BK,), tl.float32), mask=col < K)
    put(falls, i + 1, C + 1, K, K, fall, BK)


@triton.jit
def _chunks_kernel(
    q, k, a, b, falls, solved, told, y_b, y_v, moved, y_state, kept, change,
    qb, qh, qt, kb, kh, kt, ab, ah, at, bb, bh, bt, L, H, K, chunks,
    DELTA: tl.constexpr, PREC: tl.constexpr, LEVELS: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Store all that a chunk is by its tokens and keys alone: see the package's docstring.

    Channels are taken BS at a time: what a program holds stays small.
    """
    n, row = tl.program_id(0), tl.program_id(1)
    batch, head = row // H, row % H
    i = tl.arange(0, C)
    t = n * C + i
    place = row.to(tl.int64) * chunks + n
    falls += place * (C + 1) * K
    q = head_at(q, batch, head, qb, qh)
    qb_scores = tl.zeros((C, C), tl.float32)
    ab_scores = tl.zeros((C, C), tl.float32)
    qk_scores = tl.zeros((C, C), tl.float32)
    ak_scores = tl.zeros((C, C), tl.float32)
    for column in range(0, K, BS):
        query = rows(q + column, t, L, qt, K - column, BS)
        key, read, written = sources(
            k, a, b, batch, head, t, L, column, K, kb, kh, kt, ab, ah, at, bb, bh, bt, DELTA, BS
        )
        for level in range(FIRST, LEVELS):
            of_q, of_a, of_written = factors(falls + column, i, level, K, K - column, DELTA, C, BS)
            mine = together(i, level)
            q_now, a_now = query * of_q, read * of_a
            b_now = tl.trans(written) * tl.trans(of_written)  # 3.3 fails if turned together
            qb_scores += tl.where(mine, tl.dot(q_now, b_now, input_precision=PREC), 0.0)
            # Rounded as float32: what is lost in X is lost in every later token of the chunk.
            ab_scores += tl.where(mine, tl.dot(a_now, b_now, input_precision="tf32x3"), 0.0)
            if not DELTA:
                k_now = tl.trans(key) * tl.trans(of_written)
                qk_scores += tl.where(mine, tl.dot(q_now, k_now, input_precision=PREC), 0.0)
                ak_scores += tl.where(mine, tl.dot(a_now, k_now, input_precision=PREC), 0.0)
    # Of blocks of twice the size, [[A, 0], [-N, B]] has the inverse [[A', 0], [B' N A', B']].
    apart = i[:, None] ^ i[None, :]
    inverse = tl.where(apart == 1, ab_scores, 0.0) + tl.where(apart == 0, 1.0, 0.0)
    for level in range(1, LEVELS):
        part = tl.where(apart >> level == 1, ab_scores, 0.0)
        part = tl.dot(inverse, part, input_precision=PREC)
        inverse += tl.dot(part, inverse, input_precision=PREC)
    square = place * C * C + i[:, None] * C + i[None, :]
    tl.store(solved + square, inverse)
    tl.store(y_b + square, qb_scores)
    if DELTA:
        of_v = inverse
        tl.store(y_v + square, tl.dot(qb_scores, of_v, input_precision=PREC))
    else:
        ak_scores = tl.where(apart == 0, 0.0, ak_scores)
        of_v = tl.dot(inverse, ak_scores, input_precision=PREC)
        tl.store(told + square, of_v)
        values = tl.dot(qb_scores, of_v, acc=qk_scores, input_precision=PREC)
        tl.store(y_v + square, values)
    # All of b', of which F takes the channels as rows.
    _, _, whole = sources(
        k, a, b, batch, head, t, L, 0, K, kb, kh, kt, ab, ah, at, bb, bh, bt, DELTA, BK
    )
    whole = tl.trans(whole * remaining(falls, i, K, K, C, BK))
    moved, y_state, kept = moved + place * C * K, y_state + place * C * K, kept + place * C * K
    for column in range(0, K, BS):
        left = K - column
        key, read, added = sources(
            k, a, b, batch, head, t, L, column, K, kb, kh, kt, ab, ah, at, bb, bh, bt, DELTA, BS
        )
        after = rows(falls + column, i + 1, C + 1, K, left, BS)
        rest = remaining(falls + column, i, K, left, C, BS)
        if DELTA:
            read = read * tl.exp2(after)
            last = tl.dot(tl.trans(of_v), added * rest, input_precision=PREC)
        else:
            read = read * tl.exp2(rows(falls + column, i, C + 1, K, left, BS))
            last = tl.dot(tl.trans(of_v), added * rest, acc=key * rest, input_precision=PREC)
        put(kept + column, i, C, K, left, last, BS)
        of_state = tl.dot(inverse, read, input_precision=PREC)
        put(moved + column, i, C, K, left, of_state, BS)
        query = rows(q + column, t, L, qt, left, BS) * tl.exp2(after)
        out = tl.dot(qb_scores, of_state, acc=query, input_precision=PREC)
        put(y_state + column, i, C, K, left, out, BS)
        turn = tl.dot(whole, of_state, input_precision=PREC)
        put(change + place * K * K + column, tl.arange(0, BK), K, K, left, turn, BS)


@triton.jit
def _states_kernel(
    x, falls, change, weights, start, states, xb, xh, xt, L, H, K, P, chunks, N, segments,
    REVERSE: tl.constexpr, START: tl.constexpr, ADDS: tl.constexpr, ENDS: tl.constexpr,
    PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store the state that each chunk starts from; in reverse, its gradient R after the chunk.

    x are v and `weights` N of the package's docstring; in reverse dy and Q. A program takes BP of a
    state's columns and a segment of N chunks, which starts from 0, from `start` or ("one") from 1.
    Without ADDS x counts for nothing; with ENDS only what the segment ends with is stored.
    """
    first, row = tl.program_id(0) * BP, tl.program_id(1)
    segment = tl.program_id(2)
    x = head_at(x, row // H, row % H, xb, xh) + first
    i, r, c = tl.arange(0, C), tl.arange(0, BK), first + tl.arange(0, BP)
    place = r[:, None] * P + c[None, :]
    inside = (r < K)[:, None] & (c < P)[None, :]
    mine = (row.to(tl.int64) * segments + segment) * K * P
    state = tl.zeros((BK, BP), tl.float32)
    if START == "given":
        state = tl.load(start + mine + place, mask=inside, other=0.0)
    elif START == "one":
        state = tl.where(r[:, None] == c[None, :], 1.0, state)
    for step in range(N):
        n = segment * N + (N - 1 - step if REVERSE else step)
        there = n < chunks  # the last segment may be shorter
        at = row.to(tl.int64) * chunks + n
        if not ENDS:
            tl.store(states + at * K * P + place, state, mask=inside & there)
        end = tl.load(falls + (at * (C + 1) + C) * K + r, mask=(r < K) & there, other=0.0)
        where, mask = state_at(change + at * K * K, K, K, BK, BK)
        turn = tl.load(where, mask=mask & there, other=0.0)
        # Not on the diagonal of F: a factor near 1 must not be rounded, once a chunk.
        moved = tl.dot(tl.trans(turn) if REVERSE else turn, state, input_precision=PREC)
        if ADDS:
            weight = rows(weights + at * C * K, i, tl.where(there, C, 0), K, K, BK)
            value = rows(x, n * C + i, L, xt, P - first, BP)
            moved = tl.dot(tl.trans(weight), value, acc=moved, input_precision=PREC)
        state = state * tl.exp2(end)[:, None] + moved
    if ENDS:
        tl.store(states + mine + place, state, mask=inside)


@triton.jit
def _outputs_kernel(
    v, y_v, y_state, states, y, vb, vh, vt, yb, yh, yt, L, H, K, P, chunks,
    PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    n, row = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, C)
    t = n * C + i
    at = row.to(tl.int64) * chunks + n
    where, mask = state_at(states + at * K * P, K, P, BK, BP)
    state = tl.load(where, mask=mask, other=0.0)
    value = rows(head_at(v, row // H, row % H, vb, vh), t, L, vt, P, BP)
    out = tl.dot(
        tl.load(y_v + at * C * C + i[:, None] * C + i[None, :]), value, input_precision=PREC
    )
    reads = rows(y_state + at * C * K, i, C, K, K, BK)
    out = tl.dot(reads, state, acc=out, input_precision=PREC)
    put(head_at(y, row // H, row % H, yb, yh), t, L, yt, P, out, BP)


def warps(K: int) -> int:
    """Return how many warps share a state whose keys have K channels."""
    return 8 if K > 64 else 4


def states_of(x: Tensor, weights: Tensor, c: Chunks, precision: str, *, reverse: bool) -> Tensor:
    """Return the states that chunks start from, (B * H, chunks, K, P), or in reverse R.

    Where heads are few, the chunks are cut into segments. What one adds, and how it changes what it
    starts from, are found first, side by side, and scanned.
    """
    B, H, L, P = x.shape
    chunks, C, K = weights.shape[1:]
    BP = min(64 if K <= 64 else 32, block(P))  # as shared memory allows
    while BP > 16 and B * H * triton.cdiv(P, BP) < _PROGRAMS:
        BP //= 2  # a state's columns do not depend on each other
    segments = min(_PROGRAMS // (B * H * triton.cdiv(P, BP)), chunks // _LEAST)
    N = triton.cdiv(chunks, segments) if segments >= 4 else chunks  # they cost twice as much more
    segments = triton.cdiv(chunks, N)

    def run(start: Tensor | None, length: int, width: int, **how: object) -> Tensor:
        states = torch.empty(B * H, length, K, width, device=x.device, dtype=torch.float32)
        _states_kernel[(triton.cdiv(width, BP), B * H, segments)](
            x, c.falls, c.change, weights, states if start is None else start, states,
            *strides(x), L, H, K, width, chunks, N, segments,
            REVERSE=reverse, PREC=precision, C=C, BK=block(K), BP=BP,
            num_warps=warps(K), num_stages=2, **how,
        )  # fmt: skip
        return states

    if segments == 1:
        return run(None, chunks, P, START="zero", ADDS=True, ENDS=False)
    added = run(None, segments, P, START="zero", ADDS=True, ENDS=True)
    factors = run(None, segments, K, START="one", ADDS=False, ENDS=True)
    if reverse:
        added, factors = added.flip(1), factors.flip(1)
    start = before(affine_scan(factors, added), segments)
    start = (start.flip(1) if reverse else start).contiguous()
    return run(start, chunks, P, START="given", ADDS=True, ENDS=False)


def forward(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor | None, b: Tensor, g: Tensor, precision: str
) -> tuple[Tensor, Tensor, Chunks]:
    """Compute y, and what the backward needs.

    Args:
        q: (B, H, L, K), the last stride 1; so all others.
        k: (B, H, L, K).
        v: (B, H, L, P).
        a: (B, H, L, K); None for the gated delta rule.
        b: (B, H, L, K); for the delta rule beta, (B, H, L).
        g: (B, H, L, K), at most 0.
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy, the states
        that chunks start from, (B * H, chunks, K, P), and the chunks.
    """
    B, H, L, P = v.shape
    K, C = q.shape[-1], CHUNK
    chunks = triton.cdiv(L, C)
    grid = (chunks, B * H)

    def empty(*shape: int) -> Tensor:
        return torch.empty(B * H, chunks, *shape, device=v.device, dtype=torch.float32)

    falls, solved = empty(C + 1, K), empty(C, C)
    _falls_kernel[grid](g, falls, *strides(g), L, H, K, chunks, C=C, BK=block(K), num_warps=4)
    told = solved if a is None else empty(C, C)
    c = Chunks(
        falls, solved, told, empty(C, C), empty(C, C), empty(C, K), empty(C, K), empty(C, K),
        empty(K, K),
    )  # fmt: skip
    _chunks_kernel[grid](
        q, k, k if a is None else a, b, *c, *strides(q, k, a, b), L, H, K, chunks,
        DELTA=a is None, PREC=precision, LEVELS=LEVELS, C=C, BK=block(K), BS=SLICE,
        num_warps=WARPS, num_stages=1,
    )  # fmt: skip
    states = states_of(v, c.kept, c, precision, reverse=False)
    y = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _outputs_kernel[grid](
        v, c.y_v, c.y_state, states, y, *strides(v, y), L, H, K, P, chunks,
        PREC=precision, C=C, BK=block(K), BP=block(P), num_warps=warps(K), num_stages=1,
    )  # fmt: skip
    return y, states, c
