"""Forward kernels of `mechbench.ops.dplr`, and what they keep for the backward."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.dplr.kernels.levels import factors, sources, together
from mechbench.ops.kernels.chunks import block, chunk_of, head_at, put, rows, state_at, strides

_PROGRAMS = 132  # enough to fill a GPU


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
    # exp(-60) is nothing beside any number that is kept; sums of less would lose the small ones.
    fall = tl.cumsum(tl.where(step < -60.0, -60.0, step), 0)
    falls += (row.to(tl.int64) * chunks + n) * (C + 1) * K
    col = tl.arange(0, BK)
    tl.store(falls + col, tl.zeros((BK,), tl.float32), mask=col < K)
    put(falls, i + 1, C + 1, K, K, fall, BK)


@triton.jit
def _chunks_kernel(
    q, k, a, b, falls, solved, told, y_b, y_v, moved, y_state, kept, change,
    qb, qh, qt, kb, kh, kt, ab, ah, at, bb, bh, bt, L, H, K, chunks,
    DELTA: tl.constexpr, PREC: tl.constexpr, LEVELS: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Store all that a chunk is by its tokens and keys alone: see the package's docstring."""
    n, row = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, C)
    t = n * C + i
    place = row.to(tl.int64) * chunks + n
    falls += place * (C + 1) * K
    query = rows(head_at(q, row // H, row % H, qb, qh), t, L, qt, K, BK)
    key, read, written = sources(
        k, a, b, row, H, t, L, K, kb, kh, kt, ab, ah, at, bb, bh, bt, DELTA=DELTA, BK=BK
    )
    diagonal = i[:, None] == i[None, :]
    inverse = tl.where(diagonal, 1.0, 0.0)
    qb_scores = tl.where(diagonal, tl.sum(query * written, 1)[:, None], 0.0)
    qk_scores = tl.where(diagonal, tl.sum(query * key, 1)[:, None], 0.0)
    ak_scores = tl.zeros((C, C), tl.float32)
    for level in range(LEVELS):
        half = 1 << level
        of_q, of_a, of_written = factors(falls, i, half, K, DELTA, C, BK)
        mine = together(i, half)
        q_now, a_now = query * of_q, read * of_a
        b_now = tl.trans(written * of_written)
        qb_scores += tl.where(mine, tl.dot(q_now, b_now, input_precision=PREC), 0.0)
        # Rounded as float32: what is lost in X is lost in every later token of the chunk.
        part = tl.where(mine, tl.dot(a_now, b_now, input_precision="tf32x3"), 0.0)
        # Of blocks of twice the size, [[A, 0], [-N, B]] has the inverse [[A', 0], [B' N A', B']].
        part = tl.dot(inverse, part, input_precision=PREC)
        inverse += tl.dot(part, inverse, input_precision=PREC)
        if not DELTA:
            k_now = tl.trans(key * of_written)
            qk_scores += tl.where(mine, tl.dot(q_now, k_now, input_precision=PREC), 0.0)
            ak_scores += tl.where(mine, tl.dot(a_now, k_now, input_precision=PREC), 0.0)
    square = i[:, None] * C + i[None, :]
    tl.store(solved + place * C * C + square, inverse)
    tl.store(y_b + place * C * C + square, qb_scores)
    before = rows(falls, i, C + 1, K, K, BK)
    after = rows(falls, i + 1, C + 1, K, K, BK)
    rest = tl.exp(rows(falls, 0 * i + C, C + 1, K, K, BK) - after)
    of_state = tl.dot(inverse, read * tl.exp(after if DELTA else before), input_precision=PREC)
    put(moved + place * C * K, i, C, K, K, of_state, BK)
    out = tl.dot(qb_scores, of_state, acc=query * tl.exp(after), input_precision=PREC)
    put(y_state + place * C * K, i, C, K, K, out, BK)
    written *= rest
    where, mask = state_at(change + place * K * K, K, K, BK, BK)
    tl.store(where, tl.dot(tl.trans(written), of_state, input_precision=PREC), mask=mask)
    if DELTA:
        of_v = inverse
        last = tl.dot(tl.trans(of_v), written, input_precision=PREC)
        values = tl.dot(qb_scores, of_v, input_precision=PREC)
    else:
        of_v = tl.dot(inverse, ak_scores, input_precision=PREC)
        tl.store(told + place * C * C + square, of_v)
        last = tl.dot(tl.trans(of_v), written, acc=key * rest, input_precision=PREC)
        values = tl.dot(qb_scores, of_v, acc=qk_scores, input_precision=PREC)
    put(kept + place * C * K, i, C, K, K, last, BK)
    tl.store(y_v + place * C * C + square, values)


@triton.jit
def _states_kernel(
    x, falls, change, weights, states, xb, xh, xt, L, H, K, P, chunks,
    REVERSE: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store the state that each chunk starts from; in reverse, its gradient R after the chunk.

    x are v and `weights` N; in reverse dy and Q.
    """
    first, row = tl.program_id(0) * BP, tl.program_id(1)
    x = head_at(x, row // H, row % H, xb, xh) + first
    states += row.to(tl.int64) * chunks * K * P
    i = tl.arange(0, C)
    r = tl.arange(0, BK)
    place = r[:, None] * P + first + tl.arange(0, BP)[None, :]
    inside = (r < K)[:, None] & (first + tl.arange(0, BP) < P)[None, :]
    state = tl.zeros((BK, BP), tl.float32)
    for step in range(chunks):
        n = chunks - 1 - step if REVERSE else step
        at = row.to(tl.int64) * chunks + n
        tl.store(states + n.to(tl.int64) * K * P + place, state, mask=inside)
        end = tl.load(falls + (at * (C + 1) + C) * K + r, mask=r < K, other=0.0)
        where, mask = state_at(change + at * K * K, K, K, BK, BK)
        turn = tl.load(where, mask=mask, other=0.0)
        weight = rows(weights + at * C * K, i, C, K, K, BK)
        value = rows(x, n * C + i, L, xt, P - first, BP)
        # Not on the diagonal of F: a factor near 1 must not be rounded, once a chunk.
        moved = tl.dot(tl.trans(turn) if REVERSE else turn, state, input_precision=PREC)
        moved = tl.dot(tl.trans(weight), value, acc=moved, input_precision=PREC)
        state = state * tl.exp(end)[:, None] + moved


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


def states_of(x: Tensor, weights: Tensor, c: Chunks, precision: str, *, reverse: bool) -> Tensor:
    """Return what `_states_kernel` stores, (B * H, chunks, K, P)."""
    B, H, L, P = x.shape
    chunks, C, K = weights.shape[1:]
    BP = block(P)
    while BP > 16 and B * H * triton.cdiv(P, BP) < _PROGRAMS:
        BP //= 2  # a state's columns do not depend on each other
    states = torch.empty(B * H, chunks, K, P, device=x.device, dtype=torch.float32)
    _states_kernel[(triton.cdiv(P, BP), B * H)](
        x, c.falls, c.change, weights, states, *strides(x), L, H, K, P, chunks,
        REVERSE=reverse, PREC=precision, C=C, BK=block(K), BP=BP, num_warps=4, num_stages=2,
    )  # fmt: skip
    return states


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
    K, C = q.shape[-1], chunk_of(q, v)
    chunks, warps = triton.cdiv(L, C), C // 8
    grid, tile = (chunks, B * H), {"C": C, "BK": block(K), "num_warps": warps, "num_stages": 1}

    def empty(rows: int, cols: int) -> Tensor:
        return torch.empty(B * H, chunks, rows, cols, device=v.device, dtype=torch.float32)

    falls = empty(C + 1, K)
    _falls_kernel[grid](g, falls, *strides(g), L, H, K, chunks, **tile)
    solved = empty(C, C)
    told = solved if a is None else empty(C, C)
    c = Chunks(
        falls, solved, told, empty(C, C), empty(C, C), empty(C, K), empty(C, K), empty(C, K),
        empty(K, K),
    )  # fmt: skip
    _chunks_kernel[grid](
        q, k, k if a is None else a, b, *c, *strides(q, k, a, b), L, H, K, chunks,
        DELTA=a is None, PREC=precision, LEVELS=C.bit_length() - 1, **tile,
    )  # fmt: skip
    states = states_of(v, c.kept, c, precision, reverse=False)
    y = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    _outputs_kernel[grid](
        v, c.y_v, c.y_state, states, y, *strides(v, y), L, H, K, P, chunks,
        PREC=precision, BP=block(P), **tile,
    )  # fmt: skip
    return y, states, c
