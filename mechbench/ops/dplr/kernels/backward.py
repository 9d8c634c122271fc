"""Backward kernel of `mechbench.ops.dplr`: the formulas of the package's docstring.

exp(G_t) scales q_t up, exp(E_t) a_t up, and exp(-G_s) k_s and b_s; so within a chunk, whose last
decay also scales what is left at its end, the gradients of G follow from those of q, k, a and b.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.dplr.kernels.forward import LEVELS, SLICE, WARPS, Chunks, states_of
from mechbench.ops.dplr.kernels.levels import FIRST, factors, remaining, sources, together
from mechbench.ops.kernels.chunks import block, head_at, put, rows, strides


@triton.jit
def _products_kernel(
    k, v, b, falls, solved, told, y_b, y_v, moved, kept, states, backs, dy,
    dv, added, d_told, d_qb, d_qk, d_ab, d_ak,
    kb, kh, kt, vb, vh, vt, bb, bh, bt, yb, yh, yt, L, H, K, P, chunks,
    DELTA: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store dv, and the gradients of the chunk's matrices: see the package's docstring."""
    n, row = tl.program_id(0), tl.program_id(1)
    batch, head = row // H, row % H
    i = tl.arange(0, C)
    r = tl.arange(0, BK)
    t = n * C + i
    place = row.to(tl.int64) * chunks + n
    falls += place * (C + 1) * K
    thin = place * C * K
    dv += (batch.to(tl.int64) * L * H + head) * P  # (B, L, H, P)
    v, dy = head_at(v, batch, head, vb, vh), head_at(dy, batch, head, yb, yh)
    square = place * C * C + i[:, None] * C + i[None, :]
    key = rows(head_at(k, batch, head, kb, kh), t, L, kt, K, BK)
    b = head_at(b, batch, head, bb, bh)
    if DELTA:
        late = key * tl.load(b + t * bt, mask=t < L, other=0.0).to(tl.float32)[:, None]
    else:
        late = rows(b, t, L, bt, K, BK)
    late = late * remaining(falls, i, K, K, C, BK)
    dq_b = tl.zeros((C, C), tl.float32)
    dq_k = tl.zeros((C, C), tl.float32)
    da_b = tl.zeros((C, C), tl.float32)
    da_k = tl.zeros((C, C), tl.float32)
    for column in range(0, P, BP):
        left = P - column
        state = rows(states + place * K * P + column, r, K, P, left, BP)
        back = rows(backs + place * K * P + column, r, K, P, left, BP)
        value = rows(v + column, t, L, vt, left, BP)
        grad = rows(dy + column, t, L, yt, left, BP)
        p = tl.dot(tl.load(told + square), value, input_precision=PREC)
        p = tl.dot(rows(moved + thin, i, C, K, K, BK), state, acc=p, input_precision=PREC)
        dp = tl.dot(tl.trans(tl.load(y_b + square)), grad, input_precision=PREC)
        dp = tl.dot(late, back, acc=dp, input_precision=PREC)
        dz = tl.dot(tl.trans(tl.load(solved + square)), dp, input_precision=PREC)
        dq_b = tl.dot(grad, tl.trans(p), acc=dq_b, input_precision=PREC)
        da_b = tl.dot(dz, tl.trans(p), acc=da_b, input_precision=PREC)
        if DELTA:
            d_value = dz
        else:
            dq_k = tl.dot(grad, tl.trans(value), acc=dq_k, input_precision=PREC)
            da_k = tl.dot(dz, tl.trans(value), acc=da_k, input_precision=PREC)
            d_value = tl.dot(tl.trans(tl.load(y_v + square)), grad, input_precision=PREC)
            weight = rows(kept + thin, i, C, K, K, BK)
            d_value = tl.dot(weight, back, acc=d_value, input_precision=PREC)
        put(dv + column, t, L, H * P, left, d_value, BP)
        put(added + place * C * P + column, i, C, P, left, p, BP)
        put(d_told + place * C * P + column, i, C, P, left, dz, BP)
    seen = i[:, None] >= i[None, :]
    above = i[:, None] > i[None, :]
    tl.store(d_qb + square, tl.where(seen, dq_b, 0.0))
    tl.store(d_ab + square, tl.where(above, da_b, 0.0))
    if not DELTA:
        tl.store(d_qk + square, tl.where(seen, dq_k, 0.0))
        tl.store(d_ak + square, tl.where(above, da_k, 0.0))


@triton.jit
def _gradients_kernel(
    q, k, v, a, b, falls, states, backs, dy, added, d_told, d_qb, d_qk, d_ab, d_ak,
    dq, dk, da, db, dg,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, ab, ah, at, bb, bh, bt, yb, yh, yt, L, H, K, P, chunks,
    DELTA: tl.constexpr, PREC: tl.constexpr, LEVELS: tl.constexpr,
    C: tl.constexpr, BS: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store the gradients of BS channels from those of the chunk's matrices."""
    n, row, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, head = row // H, row % H
    column = part * BS
    left = K - column
    i = tl.arange(0, C)
    c = tl.arange(0, BS)
    t = n * C + i
    place = row.to(tl.int64) * chunks + n
    falls += place * (C + 1) * K + column
    square = place * C * C + i[:, None] * C + i[None, :]
    first = (batch.to(tl.int64) * L * H + head) * K + column  # of gradients: (B, L, H, K)
    v, dy = head_at(v, batch, head, vb, vh), head_at(dy, batch, head, yb, yh)
    grad_q = tl.zeros((C, BS), tl.float32)
    grad_k = tl.zeros((C, BS), tl.float32)
    grad_a = tl.zeros((C, BS), tl.float32)
    grad_b = tl.zeros((C, BS), tl.float32)
    end = tl.zeros((BS,), tl.float32)
    for value in range(0, P, BP):
        width = P - value
        here = (place * K + column) * P + value
        state = rows(states + here, c, left, P, width, BP)
        back = rows(backs + here, c, left, P, width, BP)
        end += tl.sum(state * back, 1)
        state, back = tl.trans(state), tl.trans(back)
        grad = rows(dy + value, t, L, yt, width, BP)
        grad_q = tl.dot(grad, state, acc=grad_q, input_precision=PREC)
        now = rows(d_told + place * C * P + value, i, C, P, width, BP)
        grad_a = tl.dot(now, state, acc=grad_a, input_precision=PREC)
        now = rows(added + place * C * P + value, i, C, P, width, BP)
        grad_b = tl.dot(now, back, acc=grad_b, input_precision=PREC)
        if not DELTA:
            now = rows(v + value, t, L, vt, width, BP)
            grad_k = tl.dot(now, back, acc=grad_k, input_precision=PREC)

    query = rows(head_at(q, batch, head, qb, qh) + column, t, L, qt, left, BS)
    key, read, written = sources(
        k, a, b, batch, head, t, L, column, K, kb, kh, kt, ab, ah, at, bb, bh, bt, DELTA, BS
    )
    after = rows(falls, i + 1, C + 1, K, left, BS)
    rest = remaining(falls, i, K, left, C, BS)
    end *= tl.exp2(tl.load(falls + C * K + c, mask=c < left, other=0.0))
    grad_q *= tl.exp2(after)
    grad_b *= rest
    end += tl.sum(written * grad_b, 0)
    of_qb, of_ab = tl.load(d_qb + square), tl.load(d_ab + square)
    if DELTA:
        grad_a *= tl.exp2(after)
    else:
        grad_a *= tl.exp2(rows(falls, i, C + 1, K, left, BS))
        grad_k *= rest
        end += tl.sum(key * grad_k, 0)
        of_qk, of_ak = tl.load(d_qk + square), tl.load(d_ak + square)
    # What reads and what is read, one after the other: a program holds less.
    for level in range(FIRST, LEVELS):
        by_q, by_a, by_written = factors(falls, i, level, K, left, DELTA, C, BS)
        mine = together(i, level)
        b_now = written * by_written
        from_q = tl.dot(tl.where(mine, of_qb, 0.0), b_now, input_precision=PREC)
        from_a = tl.dot(tl.where(mine, of_ab, 0.0), b_now, input_precision=PREC)
        if not DELTA:
            k_now = key * by_written
            from_q = tl.dot(tl.where(mine, of_qk, 0.0), k_now, acc=from_q, input_precision=PREC)
            from_a = tl.dot(tl.where(mine, of_ak, 0.0), k_now, acc=from_a, input_precision=PREC)
        grad_q += by_q * from_q
        grad_a += by_a * from_a
    across = place * C * C + i[None, :] * C + i[:, None]
    from_qb, from_ab = tl.load(d_qb + across), tl.load(d_ab + across)
    if not DELTA:
        from_qk, from_ak = tl.load(d_qk + across), tl.load(d_ak + across)
    for level in range(FIRST, LEVELS):
        by_q, by_a, by_written = factors(falls, i, level, K, left, DELTA, C, BS)
        mine = tl.trans(together(i, level))
        q_now, a_now = query * by_q, read * by_a
        from_b = tl.dot(tl.where(mine, from_qb, 0.0), q_now, input_precision=PREC)
        from_b = tl.dot(tl.where(mine, from_ab, 0.0), a_now, acc=from_b, input_precision=PREC)
        grad_b += by_written * from_b
        if not DELTA:
            from_k = tl.dot(tl.where(mine, from_qk, 0.0), q_now, input_precision=PREC)
            from_k = tl.dot(tl.where(mine, from_ak, 0.0), a_now, acc=from_k, input_precision=PREC)
            grad_k += by_written * from_k
    fall = query * grad_q - written * grad_b + read * grad_a
    if DELTA:
        step = tl.cumsum(fall, 0, reverse=True)
        share = tl.load(head_at(b, batch, head, bb, bh) + t * bt, mask=t < L, other=0.0)
        put(dk + first, t, L, H * K, left, share.to(tl.float32)[:, None] * grad_b - grad_a, BS)
        # One sum for each part of the channels: (parts, B, L, H).
        db += (part.to(tl.int64) * (tl.num_programs(1) // H) + batch) * L * H + head
        tl.store(db + t * H, tl.sum(grad_b * key, 1), mask=t < L)
    else:
        # a reads before the decay of its own step.
        step = tl.cumsum(fall - key * grad_k, 0, reverse=True) - read * grad_a
        put(dk + first, t, L, H * K, left, grad_k, BS)
        put(da + first, t, L, H * K, left, grad_a, BS)
        put(db + first, t, L, H * K, left, grad_b, BS)
    put(dq + first, t, L, H * K, left, grad_q, BS)
    put(dg + first, t, L, H * K, left, step + end[None, :], BS)


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

    def empty(*shape: int) -> Tensor:
        return torch.empty(B * H, chunks, *shape, device=v.device, dtype=torch.float32)

    dq, dk, dv, dg = (like(x) for x in (q, k, v, g))
    delta, parts = a is None, triton.cdiv(K, SLICE)
    da = None if a is None else like(a)
    sums = torch.empty(parts if delta else 0, B, L, H, device=v.device, dtype=torch.float32)
    db = sums if delta else like(b)
    squares = [empty(C, C) for _ in range(2 if delta else 4)]
    d_qb, d_ab = squares[0], squares[-1]
    d_qk, d_ak = (d_qb, d_ab) if delta else squares[1:3]
    matrices = empty(C, P), empty(C, P), d_qb, d_qk, d_ab, d_ak
    tile = {
        "DELTA": delta, "PREC": precision, "C": C, "BP": SLICE, "num_warps": WARPS, "num_stages": 1,
    }  # fmt: skip
    _products_kernel[(chunks, B * H)](
        k, v, b, c.falls, c.solved, c.told, c.y_b, c.y_v, c.moved, c.kept, states, backs, dy,
        dv, *matrices, *strides(k, v, b, dy), L, H, K, P, chunks,
        BK=block(K), **tile,
    )  # fmt: skip
    _gradients_kernel[(chunks, B * H, parts)](
        q, k, v, k if a is None else a, b, c.falls, states, backs, dy, *matrices,
        dq, dk, dk if da is None else da, db, dg,
        *strides(q, k, v, a, b, dy), L, H, K, P, chunks,
        LEVELS=LEVELS, BS=SLICE, **tile,
    )  # fmt: skip
    if delta:
        db = sums.sum(0).transpose(1, 2).to(b.dtype)
    return dq, dk, dv, da, db, dg
