"""Segments of a sequence, side by side where heads are too few to fill a GPU.

A chunk maps the state S that it starts from to

    A S + B,   A = exp(G_C) I - (exp(G_C - G) k)^T X (beta exp(G) k)

and the gradient R of the state after it to A^T R + B'. So a segment of chunks maps S to M S + N and
R to M^T R + N', where M, the product of its A, is what becomes of the identity without values. M, N
and N' are found by a pass over the chunks that stores nothing on its way, and joined over the
segments; then each segment goes its way, as a whole sequence would, from the state it starts from.
No key of norm at most 1 lets M grow, for beta from 0 to 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.delta_rule.kernels.steps import last_rows, step_rows, strides_of
from mechbench.ops.kernels.chunks import (
    block,
    cumulated,
    decays,
    head_at,
    tiles,
)

_PROGRAMS = 264  # two for each processor of a large GPU
_LEAST = 8  # chunks of a segment
_FEWEST = 4  # segments: what they start from costs two fifths of the passes that it shortens


class Cut(NamedTuple):
    """How a sequence of chunks is cut: chunks a segment (the last may have fewer), and segments."""

    span: int
    segments: int


def cut(heads: int, chunks: int) -> Cut:
    """Return the cut for so many heads of all sequences together."""
    segments = min(_PROGRAMS // max(1, heads), chunks // _LEAST)
    if segments < _FEWEST:
        return Cut(chunks, 1)
    span = triton.cdiv(chunks, segments)
    return Cut(span, triton.cdiv(chunks, span))


@triton.jit
def ends_of(segment, span, chunks, MANY: tl.constexpr):
    """Return a segment's first chunk, and the one after its last."""
    first = segment * span if MANY else 0
    last = tl.minimum(first + span, chunks) if MANY else chunks
    return first, last


@triton.jit
def columns_at(base, first, K, W, stride, BK: tl.constexpr, BP: tl.constexpr):
    """Return where BP of the W columns of a state lie, and which of their entries there are."""
    row, col = tl.arange(0, BK), first + tl.arange(0, BP)
    mask = (row < K)[:, None] & (col < W)[None, :]
    return base + row[:, None] * stride + col[None, :], mask


@triton.jit
def _moves_kernel(
    k, v, g, beta, inverses, moves,
    kb, kh, kt, ks, vb, vh, vt, vs, gb, gh, gt, bb, bh, bt, L, H, K, P, chunks, span, segments,
    N: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store [N, M] of all segments but the last; a program takes BP of the P + K columns."""
    row, segment, column = tl.program_id(0), tl.program_id(1), tl.program_id(2) * BP
    b, h = row // H, row % H
    k, v = head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, beta = head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh)
    i = tl.arange(0, C)
    square = i[:, None] * C + i[None, :]
    # Columns of the identity follow those of 0.
    r, c = tl.arange(0, BK), column + tl.arange(0, BP)
    state = tl.where(r[:, None] + P == c[None, :], 1.0, 0.0)
    first, last = ends_of(segment, span, chunks, True)
    for n in range(first, last):
        t = n * C + i
        fall, end = cumulated(g, t, L, gt, True, C)
        key = step_rows(k, t, L, kt, ks, K, N, BK)
        value = step_rows(v + column, t, L, vt, vs, P - column, N, BP)
        share = tl.load(beta + t * bt, mask=t < L, other=0.0).to(tl.float32)
        inverse = tl.load(inverses + (row.to(tl.int64) * chunks + n) * C * C + square)
        held = tl.dot(key * tl.exp(fall)[:, None], state, input_precision=PREC)
        written = tl.dot(inverse, share[:, None] * (value - held), input_precision=PREC)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), written, input_precision=PREC
        )
    place = row.to(tl.int64) * segments + segment
    at, mask = columns_at(moves + place * K * (P + K), column, K, P + K, P + K, BK, BP)
    tl.store(at, state, mask=mask)


@triton.jit
def _sent_kernel(
    q, k, g, beta, inverses, dy, sent,
    qb, qh, qt, kb, kh, kt, ks, gb, gh, gt, bb, bh, bt, yb, yh, yt,
    L, H, K, P, chunks, span, segments,
    N: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store N' of all segments but the first; a program takes BP of its columns."""
    row, segment, first = tl.program_id(0), tl.program_id(1) + 1, tl.program_id(2) * BP
    b, h = row // H, row % H
    q, k, dy = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(dy, b, h, yb, yh)
    g, beta = head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh)
    i = tl.arange(0, C)
    square = i[:, None] * C + i[None, :]
    back = tl.zeros((BK, BP), tl.float32)
    start, stop = ends_of(segment, span, chunks, True)
    for step in range(stop - start):
        n = stop - 1 - step
        t = n * C + i
        fall, end = cumulated(g, t, L, gt, True, C)
        query = last_rows(q, t, L, qt, K, N, BK)
        key = step_rows(k, t, L, kt, ks, K, N, BK)
        grad = last_rows(dy + first, t, L, yt, P - first, N, BP)
        lead = tl.exp(fall)
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * decays(fall, C)
        d_written = tl.dot(tl.trans(scores), grad, input_precision=PREC)
        d_written += tl.dot(key * tl.exp(end - fall)[:, None], back, input_precision=PREC)
        back = back * tl.exp(end) + tl.dot(
            tl.trans(query * lead[:, None]), grad, input_precision=PREC
        )
        share = tl.load(beta + t * bt, mask=t < L, other=0.0).to(tl.float32)
        inverse = tl.load(inverses + (row.to(tl.int64) * chunks + n) * C * C + square)
        d_told = tl.dot(tl.trans(inverse), d_written, input_precision=PREC)
        back -= tl.dot(tl.trans(key * (share * lead)[:, None]), d_told, input_precision=PREC)
    place = row.to(tl.int64) * segments + segment
    at, mask = columns_at(sent + place * K * P, first, K, P, P, BK, BP)
    tl.store(at, back, mask=mask)


@triton.jit
def _joined_kernel(
    added, turns, starts, segments, K, P, added_stride, turns_stride,
    REVERSE: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store the states that segments start from; in reverse, R after each."""
    row, first = tl.program_id(0).to(tl.int64) * segments, tl.program_id(1) * BP
    state = tl.zeros((BK, BP), tl.float32)
    for step in range(segments):
        n = row + (segments - 1 - step if REVERSE else step)
        at, mask = columns_at(starts + n * K * P, first, K, P, P, BK, BP)
        tl.store(at, state, mask=mask)
        # Of the segment that is last on this way nothing was computed, nor is it needed; the
        # first starts from 0.
        there = step < segments - 1
        at, mask = columns_at(added + n * K * added_stride, first, K, P, added_stride, BK, BP)
        new = tl.load(at, mask=mask & there, other=0.0)
        at, mask = columns_at(turns + n * K * turns_stride, 0, K, K, turns_stride, BK, BK)
        turn = tl.load(at, mask=mask & there & (step > 0), other=0.0)
        if REVERSE:
            turn = tl.trans(turn)
        # Rounded as float32: entries of M near 1 count once a segment.
        state = tl.dot(turn, state, acc=new, input_precision="tf32x3")


def _joined(added: Tensor, turns: Tensor, *, reverse: bool) -> Tensor:
    B, H, segments, K, P = added.shape
    starts = torch.empty(added.shape, device=added.device, dtype=torch.float32)
    BP = 16  # columns do not depend on each other
    _joined_kernel[(B * H, triton.cdiv(P, BP))](
        added, turns, starts, segments, K, P, added.stride(-2), turns.stride(-2),
        REVERSE=reverse, BK=block(K), BP=BP, num_warps=8 if K > 64 else 4, num_stages=2,
    )  # fmt: skip
    return starts


def starts_of(
    k: Tensor, v: Tensor, g: Tensor, beta: Tensor, inverses: Tensor, c: Cut, precision: str
) -> tuple[Tensor, Tensor]:
    """Return the states that segments start from, and M for the backward.

    Args:
        k: (B, H, L, N, K), as in `forward`; so the others.
        v: (B, H, L, N, P).
        g: (B, H, L N).
        beta: (B, H, L N).
        inverses: X, (B, H, chunks, C, C).
        c: the cut; more than one segment.
        precision: how products round.

    Returns:
        (B, H, segments, K, P) and (B, H, segments, K, K), float32; the last M is not computed.
    """
    B, H, L, N, P = v.shape
    K, chunks, C = k.shape[-1], *inverses.shape[2:4]
    moves = torch.empty(B, H, c.segments, K, P + K, device=v.device, dtype=torch.float32)
    BP = min(block(P + K), 128 if K <= 64 else 64)  # two programs share a processor's registers
    _moves_kernel[(B * H, c.segments - 1, triton.cdiv(P + K, BP))](
        k, v, g, beta, inverses, moves, *strides_of(k, v, g, beta), L * N, H, K, P, chunks,
        c.span, c.segments, N=N, **tiles(k, v, C, precision) | {"BP": BP},
    )  # fmt: skip
    added, turns = moves.split([P, K], -1)
    return _joined(added, turns, reverse=False), turns


def backs_of(
    q: Tensor,
    k: Tensor,
    g: Tensor,
    beta: Tensor,
    inverses: Tensor,
    turns: Tensor,
    dy: Tensor,
    c: Cut,
    precision: str,
) -> Tensor:
    """Return R after each segment, (B, H, segments, K, P), from M and dy (B, H, L, P)."""
    B, H, _, P = dy.shape
    K, N = k.shape[-1], k.shape[3]
    chunks, C = inverses.shape[2:4]
    sent = torch.empty(B, H, c.segments, K, P, device=dy.device, dtype=torch.float32)
    BP = min(block(P), 64)
    _sent_kernel[(B * H, c.segments - 1, triton.cdiv(P, BP))](
        q, k, g, beta, inverses, dy, sent,
        *strides_of(q, k, g, beta, dy), g.shape[2], H, K, P, chunks, c.span, c.segments,
        N=N, **tiles(q, dy, C, precision) | {"BP": BP},
    )  # fmt: skip
    return _joined(sent, turns, reverse=True)
