"""Backward kernel of `mechbench.ops.dplr`: the formulas of the package's docstring.

exp(G_t) scales q_t up, exp(E_t) a_t up, and exp(-G_s) k_s and b_s; so within a chunk, whose last
decay also scales what is left at its end, the gradients of G follow from those of q, k, a and b.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.dplr.kernels.forward import Chunks, states_of
from mechbench.ops.dplr.kernels.levels import factors, sources, together
from mechbench.ops.kernels.chunks import block, head_at, put, rows, state_at, strides


@triton.jit
def _gradients_kernel(
    q, k, v, a, b, falls, solved, told, y_b, y_v, moved, kept, states, backs, dy,
    dq, dk, dv, da, db, dg,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, ab, ah, at, bb, bh, bt, yb, yh, yt, L, H, K, P, chunks,
    DELTA: tl.constexpr, PREC: tl.constexpr, LEVELS: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    n, row = tl.program_id(0), tl.program_id(1)
    batch, head = row // H, row % H
    i = tl.arange(0, C)
    r = tl.arange(0, BK)
    t = n * C + i
    place = row.to(tl.int64) * chunks + n
    falls += place * (C + 1) * K
    square = place * C * C + i[:, None] * C + i[None, :]
    first = (batch.to(tl.int64) * L * H + head) * K  # of gradients: (B, L, H, K)
    dv += (batch.to(tl.int64) * L * H + head) * P
    v, dy = head_at(v, batch, head, vb, vh), head_at(dy, batch, head, yb, yh)

    d_yv = tl.zeros((C, C), tl.float32)
    d_ystate = tl.zeros((C, BK), tl.float32)
    d_kept = tl.zeros((C, BK), tl.float32)
    d_change = tl.zeros((BK, BK), tl.float32)
    for column in range(0, P, BP):
        left = P - column
        where, mask = state_at(states + place * K * P + column, K, P, BK, BP)
        mask = mask & (tl.arange(0, BP) < left)[None, :]
        state = tl.load(where, mask=mask, other=0.0)
        where, _ = state_at(backs + place * K * P + column, K, P, BK, BP)
        back = tl.load(where, mask=mask, other=0.0)
        value = rows(v + column, t, L, vt, left, BP)
        grad = rows(dy + column, t, L, yt, left, BP)
        d_value = tl.dot(tl.trans(tl.load(y_v + square)), grad, input_precision=PREC)
        weight = rows(kept + place * C * K, i, C, K, K, BK)
        d_value = tl.dot(weight, back, acc=d_value, input_precision=PREC)
        put(dv + column, t, L, H * P, left, d_value, BP)
        d_yv = tl.dot(grad, tl.trans(value), acc=d_yv, input_precision=PREC)
        d_ystate = tl.dot(grad, tl.trans(state), acc=d_ystate, input_precision=PREC)
        d_kept = tl.dot(value, tl.trans(back), acc=d_kept, input_precision=PREC)
        d_change = tl.dot(back, tl.trans(state), acc=d_change, input_precision=PREC)

    key, read, written = sources(
        k, a, b, row, H, t, L, K, kb, kh, kt, ab, ah, at, bb, bh, bt, DELTA=DELTA, BK=BK
    )
    seen = i[:, None] >= i[None, :]
    diagonal = i[:, None] == i[None, :]
    after = rows(falls, i + 1, C + 1, K, K, BK)
    end = tl.load(falls + C * K + r, mask=r < K, other=0.0)
    rest = tl.exp(end[None, :] - after)
    of_state = rows(moved + place * C * K, i, C, K, K, BK)
    of_v = tl.load(told + square)
    scores = tl.trans(tl.load(y_b + square))
    solved_t = tl.trans(tl.load(solved + square))
    d_yv = tl.where(seen, d_yv, 0.0)
    own = tl.where((r[:, None] == r[None, :]), d_change, 0.0)
    d_end = tl.exp(end) * tl.sum(own, 0)

    d_qb = tl.dot(d_ystate, tl.trans(of_state), input_precision=PREC)
    d_qb = tl.dot(d_yv, tl.trans(of_v), acc=d_qb, input_precision=PREC)
    d_qb = tl.where(seen, d_qb, 0.0)
    d_b = tl.dot(of_state, tl.trans(d_change), input_precision=PREC)
    d_b = tl.dot(of_v, d_kept, acc=d_b, input_precision=PREC) * rest
    late = written * rest
    d_a = tl.dot(scores, d_ystate, input_precision=PREC)
    d_a = tl.dot(late, d_change, acc=d_a, input_precision=PREC)
    d_a = tl.dot(solved_t, d_a, input_precision=PREC)
    d_ak = tl.dot(scores, d_yv, input_precision=PREC)
    d_ak = tl.dot(late, tl.trans(d_kept), acc=d_ak, input_precision=PREC)
    d_ak = tl.dot(solved_t, d_ak, input_precision=PREC)
    d_ab = tl.dot(d_a, tl.trans(of_state), input_precision=PREC)
    d_ab = tl.dot(d_ak, tl.trans(of_v), acc=d_ab, input_precision=PREC)

    query = rows(head_at(q, batch, head, qb, qh), t, L, qt, K, BK)
    d_end += tl.sum(written * d_b, 0)
    same = tl.sum(tl.where(diagonal, d_qb, 0.0), 1)[:, None]
    d_q = d_ystate * tl.exp(after) + same * written
    d_b += same * query
    if DELTA:
        d_a = d_a * tl.exp(after)
        d_k = d_b  # not used
    else:
        d_a = d_a * tl.exp(rows(falls, i, C + 1, K, K, BK))
        d_k = d_kept * rest
        d_end += tl.sum(key * d_k, 0)
        same = tl.sum(tl.where(diagonal, d_yv, 0.0), 1)[:, None]
        d_q += same * key
        d_k += same * query
    for level in range(LEVELS):
        half = 1 << level
        of_q, of_a, of_written = factors(falls, i, half, K, DELTA, C, BK)
        mine = together(i, half)
        q_now, a_now, b_now = query * of_q, read * of_a, written * of_written
        now_qb, now_ab = tl.where(mine, d_qb, 0.0), tl.where(mine, d_ab, 0.0)
        from_q = tl.dot(now_qb, b_now, input_precision=PREC)
        from_a = tl.dot(now_ab, b_now, input_precision=PREC)
        from_b = tl.dot(tl.trans(now_qb), q_now, input_precision=PREC)
        d_b += of_written * tl.dot(tl.trans(now_ab), a_now, acc=from_b, input_precision=PREC)
        if not DELTA:
            k_now = key * of_written
            now_qk, now_ak = tl.where(mine, d_yv, 0.0), tl.where(mine, d_ak, 0.0)
            from_q = tl.dot(now_qk, k_now, acc=from_q, input_precision=PREC)
            from_a = tl.dot(now_ak, k_now, acc=from_a, input_precision=PREC)
            from_k = tl.dot(tl.trans(now_qk), q_now, input_precision=PREC)
            d_k += of_written * tl.dot(tl.trans(now_ak), a_now, acc=from_k, input_precision=PREC)
        d_q += of_q * from_q
        d_a += of_a * from_a

    d_fall = query * d_q - written * d_b + read * d_a
    if DELTA:
        d_step = tl.cumsum(d_fall, 0, reverse=True)
        share = tl.load(head_at(b, batch, head, bb, bh) + t * bt, mask=t < L, other=0.0).to(
            tl.float32
        )
        put(dk + first, t, L, H * K, K, share[:, None] * d_b - d_a, BK)
        place_b = db + batch.to(tl.int64) * L * H + head + t * H  # (B, L, H)
        tl.store(place_b, tl.sum(d_b * key, 1).to(db.dtype.element_ty), mask=t < L)
    else:
        # a reads before the decay of its own step.
        d_step = tl.cumsum(d_fall - key * d_k, 0, reverse=True) - read * d_a
        put(dk + first, t, L, H * K, K, d_k, BK)
        put(da + first, t, L, H * K, K, d_a, BK)
        put(db + first, t, L, H * K, K, d_b, BK)
    put(dq + first, t, L, H * K, K, d_q, BK)
    put(dg + first, t, L, H * K, K, d_step + d_end[None, :], BK)


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor | None,
    b: Tensor,
    g: Tensor,
    states: Tensor,
    c: Chunks,
    dy: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Return the gradients of q, k, v, a, b and g, in the dtype of each."""
    B, H, L, P = v.shape
    chunks, C, K = c.kept.shape[1:]
    backs = states_of(dy, c.y_state, c, precision, reverse=True)

    def like(x: Tensor) -> Tensor:
        shape = B, L, H, *x.shape[3:]
        return torch.empty(shape, device=x.device, dtype=x.dtype).transpose(1, 2)

    dq, dk, dv, db, dg = (like(x) for x in (q, k, v, b, g))
    da = None if a is None else like(a)
    _gradients_kernel[(chunks, B * H)](
        q, k, v, k if a is None else a, b, c.falls, c.solved, c.told, c.y_b, c.y_v, c.moved, c.kept,
        states, backs, dy, dq, dk, dv, dk if da is None else da, db, dg,
        *strides(q, k, v, a, b, dy), L, H, K, P, chunks,
        DELTA=a is None, PREC=precision, LEVELS=C.bit_length() - 1,
        C=C, BK=block(K), BP=min(64, block(P)), num_warps=C // 8, num_stages=1,
    )  # fmt: skip
    return dq, dk, dv, da, db, dg
