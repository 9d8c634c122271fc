"""Forward kernels of `mechbench.ops.delta_rule`: the formulas of the package's docstring."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.delta_rule.kernels.segments import cut, ends_of, starts_of
from mechbench.ops.delta_rule.kernels.steps import last_rows, put_last, step_rows, strides_of
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
    key = step_rows(k, t, L, kt, ks, K, N, BK)
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
    q, k, v, g, beta, inverses, starts, states, y,
    qb, qh, qt, kb, kh, kt, ks, vb, vh, vt, vs, gb, gh, gt, bb, bh, bt, yb, yh, yt,
    L, H, K, P, chunks, span,
    MANY: tl.constexpr, N: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store y, and the state that each chunk starts from; a program takes a segment."""
    row = tl.program_id(0)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, beta, y = head_at(g, b, h, gb, gh), head_at(beta, b, h, bb, bh), head_at(y, b, h, yb, yh)
    i = tl.arange(0, C)
    square = i[:, None] * C + i[None, :]
    state = tl.zeros((BK, BP), tl.float32)
    segment = tl.program_id(1)
    first, last = ends_of(segment, span, chunks, MANY)
    if MANY:
        at = row.to(tl.int64) * tl.num_programs(1) + segment
        place, mask = state_at(starts + at * K * P, K, P, BK, BP)
        state = tl.load(place, mask=mask, other=0.0)
    for n in range(first, last):
        t = n * C + i
        at = row.to(tl.int64) * chunks + n
        place, mask = state_at(states + at * K * P, K, P, BK, BP)
        tl.store(place, state, mask=mask)
        fall, end = cumulated(g, t, L, gt, True, C)
        query = last_rows(q, t, L, qt, K, N, BK)
        key = step_rows(k, t, L, kt, ks, K, N, BK)
        value = step_rows(v, t, L, vt, vs, P, N, BP)
        share = tl.load(beta + t * bt, mask=t < L, other=0.0).to(tl.float32)
        inverse = tl.load(inverses + at * C * C + square)
        lead = tl.exp(fall)[:, None]
        held = tl.dot(key * lead, state, input_precision=PREC)
        written = tl.dot(inverse, share[:, None] * (value - held), input_precision=PREC)
        scores = tl.dot(query, tl.trans(key), input_precision=PREC) * decays(fall, C)
        out = tl.dot(scores, written, input_precision=PREC)
        out += tl.dot(query * lead, state, input_precision=PREC)
        put_last(y, t, L, yt, P, out, N, BP)
        state = state * tl.exp(end) + tl.dot(
            tl.trans(key * tl.exp(end - fall)[:, None]), written, input_precision=PREC
        )


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Compute y, and what the backward needs: inverses, the chunks' states, and segments' M.

    Args:
        q: (B, H, L, K), the last stride 1; so k and v.
        k: (B, H, L, N, K), N steps a token.
        v: (B, H, L, N, P).
        g: (B, H, L N), at most 0, of any strides.
        beta: (B, H, L N), of any strides.
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy; X (B, H,
        chunks, C, C) and S (B, H, chunks, K, P), float32; M (B, H, segments, K, K), float32, or
        None for one segment.
    """
    B, H, L, N, P = v.shape
    K, C = q.shape[-1], chunk_of(q, v)
    chunks = triton.cdiv(L * N, C)
    inverses = torch.empty(B, H, chunks, C, C, device=v.device, dtype=torch.float32)
    _inverse_kernel[(chunks, B * H)](
        k, g, beta, inverses, *strides_of(k, g, beta), L * N, H, K, chunks,
        N=N, PREC=precision, LEVELS=C.bit_length() - 1, C=C, BK=block(K), num_warps=4,
    )  # fmt: skip
    states = torch.empty(B, H, chunks, K, P, device=v.device, dtype=torch.float32)
    y = torch.empty(B, L, H, P, device=v.device, dtype=v.dtype).transpose(1, 2)
    c = cut(B * H, chunks)
    starts, turns = states, None
    if c.segments > 1:
        starts, turns = starts_of(k, v, g, beta, inverses, c, precision)
    _forward_kernel[(B * H, c.segments)](
        q, k, v, g, beta, inverses, starts, states, y, *strides_of(q, k, v, g, beta, y),
        L * N, H, K, P, chunks, c.span, MANY=c.segments > 1, N=N, **tiles(q, v, C, precision),
    )  # fmt: skip
    return y, inverses, states, turns
