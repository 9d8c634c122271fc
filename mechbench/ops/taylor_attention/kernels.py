"""Fused kernels of `mechbench.ops.taylor_attention`: weights in registers, features never stored.

With s = 1 / sqrt(d) and u = 1 + s q . k, twice the weight is u^2 + 1; the factor cancels. A program
holds a block of queries (in `_dkv_kernel` of keys) and walks over the other side's blocks:

    n = sum (u^2 + 1)    y = sum (u^2 + 1) v / n      g = dy / n    c = g . y
    dq = 2 s sum e k     dk = 2 s sum e q             dv = sum (u^2 + 1) g,   e = u (g . v - c)

That is quadratic in L, and with d this narrow the best up to a few thousand tokens. Longer
sequences are cut into spans, and what lies in other spans comes in through sums of features. These
are x_i x_j with an x_d = 1 behind the others, F = d^2 + d + 1 rows: those of i < d, then i = d, so
that row i d + j is x_i x_j throughout. A state holds, row by row, m sum x_i x_j a (P columns) and
then m sum x_i x_j c, with x, a, c = k, v, 1 on the way forward and q, g, c on the way back; m is
s^2, 2 s or 2, so that features times the state give (u^2 + 1) v summed, or (u^2 + 1) g.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import block, head_at, put, rows, strides
from mechbench.ops.triton import interpreted, roomy


@triton.jit
def _pairs(a, b, KIND: tl.constexpr, PREC: tl.constexpr):
    """Return a b^T; numbers that were loaded in a half type are multiplied in it, and exactly."""
    return tl.dot(a.to(KIND), tl.trans(b.to(KIND)), input_precision=PREC)


@triton.jit
def _features(x, t, L, stride, f, d):
    """Return features f (C, BF) of tokens t; beyond either end, something finite."""
    i = tl.minimum(f // d, d)
    j = f - i * d
    at, here = x + t[:, None] * stride, (t < L)[:, None]
    left = tl.load(at + i[None, :], mask=here & (i < d)[None, :], other=1.0).to(tl.float32)
    right = tl.load(at + j[None, :], mask=here & (j < d)[None, :], other=1.0).to(tl.float32)
    return left * right


@triton.jit
def _state_at(states, row, n, N, F, P):
    """Return where a span's state starts, and its last column."""
    size = (F * (P + 1) + 15) // 16 * 16
    start = states + (row.to(tl.int64) * N + n) * size
    return start, start + F * P


@triton.jit
def _read(
    x, t, L, stride, d, P, state, column,
    PREC: tl.constexpr, C: tl.constexpr, BF: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Return features times a state, (C, BP), and times its last column, (C,)."""
    F = d * d + d + 1
    out, total = tl.zeros((C, BP), tl.float32), tl.zeros((C,), tl.float32)
    for start in range(0, F, BF):
        f = start + tl.arange(0, BF)
        phi = _features(x, t, L, stride, f, d)
        out += tl.dot(phi, rows(state, f, F, P, P, BP), input_precision=PREC)
        total += tl.sum(phi * tl.load(column + f, mask=f < F, other=0.0)[None, :], 1)
    return out, total


@triton.jit
def _pull(
    x, t, L, stride, d, P, a, c, state, column,
    PREC: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Return the gradient of x, (C, BK), of features . (state a - column c)."""
    grad = tl.zeros((C, BK), tl.float32)
    j = tl.arange(0, BK)
    for i in range(d + 1):
        # x_j is in x_i x_j and, equally, in x_j x_i, but only once in x_j 1: half of the sum.
        factor = tl.load(x + t * stride + i, mask=(t < L) & (i < d), other=0.5).to(tl.float32)
        part = rows(state + i * d * P, j, d, P, P, BP)  # (BK, BP)
        last = tl.load(column + i * d + j, mask=j < d, other=0.0)
        pulled = tl.dot(a, tl.trans(part), input_precision=PREC) - c[:, None] * last[None, :]
        grad += factor[:, None] * pulled
    return 2.0 * grad


@triton.jit
def _states_kernel(
    x, a, inverse, c, states, xb, xh, xt, ab, ah, at, L, H, d, P, T, N, scale,
    BACK: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr, BF: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store BF rows of the state that a span of T tokens adds; a is scaled on the way back."""
    n, row = tl.program_id(1), tl.program_id(2)
    b, h = row // H, row % H
    x, a = head_at(x, b, h, xb, xh), head_at(a, b, h, ab, ah)
    inverse, c = inverse + row.to(tl.int64) * L, c + row.to(tl.int64) * L
    F = d * d + d + 1
    f = tl.program_id(0) * BF + tl.arange(0, BF)
    total, last = tl.zeros((BF, BP), tl.float32), tl.zeros((BF,), tl.float32)
    for start in range(n * T, tl.minimum(n * T + T, L), C):
        t = start + tl.arange(0, C)
        phi = _features(x, t, L, xt, f, d)
        value = rows(a, t, L, at, P, BP)
        if BACK:
            value *= tl.load(inverse + t, mask=t < L, other=0.0)[:, None]
            weight = tl.load(c + t, mask=t < L, other=0.0)
        else:
            weight = (t < L).to(tl.float32)
        total += tl.dot(tl.trans(phi), value, input_precision=PREC)
        last += tl.sum(phi * weight[:, None], 0)
    m = tl.where(f < d * d, scale * scale, tl.where(f < d * d + d, 2.0 * scale, 2.0))
    state, column = _state_at(states, row, n, N, F, P)
    put(state, f, F, P, P, m[:, None] * total, BP)
    tl.store(column + f, m * last, mask=f < F)


@triton.jit
def _before_kernel(
    states, N, size, used, REVERSE: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr
):
    """Replace each span's state by the sum of those before it; in reverse, after it."""
    states += tl.program_id(1).to(tl.int64) * N * size
    e = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    run = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, N, STEPS):
        step = start + tl.arange(0, STEPS)
        n = N - 1 - step if REVERSE else step
        at = states + n.to(tl.int64)[:, None] * size + e[None, :]
        mask = (step < N)[:, None] & (e < used)[None, :]
        added = tl.load(at, mask=mask, other=0.0)
        tl.store(at, run[None, :] + tl.cumsum(added, 0) - added, mask=mask)
        run += tl.sum(added, 0)


@triton.jit
def _forward_kernel(
    q, k, v, states, y, inverse, qb, qh, qt, kb, kh, kt, vb, vh, vt, yb, yh, yt,
    L, H, d, P, T, N, scale,
    HAS_STATE: tl.constexpr, KIND: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BF: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store y and 1 / n of a block of queries; the last of a span, which take longest, first."""
    first, row = (tl.num_programs(0) - 1 - tl.program_id(0)) * C, tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    y, inverse = head_at(y, b, h, yb, yh), inverse + row.to(tl.int64) * L
    t = first + tl.arange(0, C)
    query = rows(q, t, L, qt, d, BK)
    out, n = tl.zeros((C, BP), tl.float32), tl.zeros((C,), tl.float32)
    for diagonal in tl.static_range(2):  # the last block alone needs a mask
        low, high = first if diagonal else first // T * T, first + C if diagonal else first
        for start in range(low, high, C):
            s = start + tl.arange(0, C)
            u = 1.0 + scale * _pairs(query, rows(k, s, L, kt, d, BK), KIND, PREC)
            w = u * u + 1.0
            if diagonal:
                w = tl.where(t[:, None] >= s[None, :], w, 0.0)
            out += tl.dot(w, rows(v, s, L, vt, P, BP), input_precision=PREC)
            n += tl.sum(w, 1)
    if HAS_STATE:
        state, column = _state_at(states, row, first // T, N, d * d + d + 1, P)
        earlier, total = _read(q, t, L, qt, d, P, state, column, PREC, C, BF, BP)
        out += earlier
        n += total
    put(y, t, L, yt, P, out / n[:, None], BP)
    tl.store(inverse + t, 1.0 / n, mask=t < L)


@triton.jit
def _dq_kernel(
    q, k, v, states, y, dy, inverse, dq, c_out, qb, qh, qt, kb, kh, kt, vb, vh, vt,
    yb, yh, yt, gb, gh, gt, db, dh, dt, L, H, d, P, T, N, scale,
    HAS_STATE: tl.constexpr, KIND: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BF: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store dq and c of a block of queries."""
    first, row = (tl.num_programs(0) - 1 - tl.program_id(0)) * C, tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    y, dy, dq = head_at(y, b, h, yb, yh), head_at(dy, b, h, gb, gh), head_at(dq, b, h, db, dh)
    t = first + tl.arange(0, C)
    query, grad = rows(q, t, L, qt, d, BK), rows(dy, t, L, gt, P, BP)
    norm = tl.load(inverse + row.to(tl.int64) * L + t, mask=t < L, other=0.0)
    c = tl.sum(grad * rows(y, t, L, yt, P, BP), 1) * norm
    tl.store(c_out + row.to(tl.int64) * L + t, c, mask=t < L)
    out = tl.zeros((C, BK), tl.float32)
    for diagonal in tl.static_range(2):
        low, high = first if diagonal else first // T * T, first + C if diagonal else first
        for start in range(low, high, C):
            s = start + tl.arange(0, C)
            key, value = rows(k, s, L, kt, d, BK), rows(v, s, L, vt, P, BP)
            u = 1.0 + scale * _pairs(query, key, KIND, PREC)
            e = u * (_pairs(grad, value, KIND, PREC) * norm[:, None] - c[:, None])
            if diagonal:
                e = tl.where(t[:, None] >= s[None, :], e, 0.0)
            out += tl.dot(e, key, input_precision=PREC)
    out *= 2.0 * scale
    if HAS_STATE:
        state, column = _state_at(states, row, first // T, N, d * d + d + 1, P)
        g = grad * norm[:, None]
        out += _pull(q, t, L, qt, d, P, g, c, state, column, PREC, C, BK, BP)
    put(dq, t, L, dt, d, out, BK)


@triton.jit
def _dkv_kernel(
    q, k, v, states, dy, inverse, c, dk, dv, qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt,
    db, dh, dt, wb, wh, wt, L, H, d, P, T, N, scale,
    HAS_STATE: tl.constexpr, KIND: tl.constexpr, PREC: tl.constexpr,
    C: tl.constexpr, BF: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Store dk and dv of a block of keys; matrices here are (keys, queries)."""
    first, row = tl.program_id(0) * C, tl.program_id(1)
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    dy, dk, dv = head_at(dy, b, h, gb, gh), head_at(dk, b, h, db, dh), head_at(dv, b, h, wb, wh)
    inverse, c = inverse + row.to(tl.int64) * L, c + row.to(tl.int64) * L
    s = first + tl.arange(0, C)
    key, value = rows(k, s, L, kt, d, BK), rows(v, s, L, vt, P, BP)
    d_key, d_value = tl.zeros((C, BK), tl.float32), tl.zeros((C, BP), tl.float32)
    end = tl.minimum(first // T * T + T, L)
    for diagonal in tl.static_range(2):
        low, high = first if diagonal else first + C, first + C if diagonal else end
        for start in range(low, high, C // 2):  # whole blocks would leave few registers
            t = start + tl.arange(0, C // 2)
            query, grad = rows(q, t, L, qt, d, BK), rows(dy, t, L, gt, P, BP)
            norm = tl.load(inverse + t, mask=t < L, other=0.0)
            part = tl.load(c + t, mask=t < L, other=0.0)
            u = 1.0 + scale * _pairs(key, query, KIND, PREC)
            if diagonal:
                seen = t[None, :] >= s[:, None]
                w = tl.where(seen, u * u + 1.0, 0.0)
                u = tl.where(seen, u, 0.0)
            else:
                w = u * u + 1.0
            d_value += tl.dot(w, grad * norm[:, None], input_precision=PREC)
            e = u * (_pairs(value, grad, KIND, PREC) * norm[None, :] - part[None, :])
            d_key += tl.dot(e, query, input_precision=PREC)
    d_key *= 2.0 * scale
    if HAS_STATE:
        state, column = _state_at(states, row, first // T, N, d * d + d + 1, P)
        later, _ = _read(k, s, L, kt, d, P, state, column, PREC, C, BF, BP)
        d_value += later
        one = tl.full((C,), 1.0, tl.float32)
        d_key += _pull(k, s, L, kt, d, P, value, one, state, column, PREC, C, BK, BP)
    put(dk, s, L, dt, d, d_key, BK)
    put(dv, s, L, wt, P, d_value, BP)


def span(L: int, d: int) -> int:
    """Return T, the tokens of a span: all while that costs less than the states would.

    A pair of tokens costs d + P products, a state 2 d^2 P a token: even at T = 4 d^2 P / (d + P).
    """
    long = 2 * block(d) ** 2
    return long if 4 * long < L else L


def _kind(*tensors: Tensor) -> object:
    """Return the type in which `_pairs` multiplies; Triton's interpreter cannot in bfloat16."""
    kinds = {x.dtype for x in tensors}
    if kinds == {torch.float16}:
        return tl.float16
    return tl.bfloat16 if kinds == {torch.bfloat16} and not interpreted() else tl.float32


def _constants(v: Tensor, precision: str) -> dict[str, object]:
    P = v.shape[-1]
    return {
        "PREC": precision, "C": 64 if P <= 64 or roomy(v.device) else 32, "BF": 64, "BP": block(P),
        "num_warps": 4 if P <= 64 else 8, "num_stages": 1,
    }  # fmt: skip


def _states(
    x: Tensor, a: Tensor, precision: str, inverse: Tensor | None = None, c: Tensor | None = None
) -> Tensor:
    """Return the sums of the states before each span, (B H N, size); given c, of those after it."""
    B, H, L, d = x.shape
    P, T, F = a.shape[-1], span(L, d), d * d + d + 1
    N, size = triton.cdiv(L, T), triton.cdiv(F * (P + 1), 16) * 16
    out = torch.empty(B * H * N, size, device=x.device, dtype=torch.float32)
    sizes = _constants(a, precision)
    _states_kernel[(triton.cdiv(F, 64), N, B * H)](
        x, a, x if inverse is None else inverse, x if c is None else c, out, *strides(x, a),
        L, H, d, P, T, N, d**-0.5, BACK=c is not None, **sizes,
    )  # fmt: skip
    _before_kernel[(triton.cdiv(size, 128), B * H)](
        out, N, size, F * (P + 1), REVERSE=c is not None, STEPS=16, WIDTH=128
    )
    return out


def forward(
    q: Tensor, k: Tensor, v: Tensor, precision: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute y, 1 / n and the states that spans start from.

    Args:
        q: (B, H, L, d), the last stride 1; so k and v.
        k: (B, H, L, d).
        v: (B, H, L, P).
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy; 1 / n
        (B, H, L) and the states, float32, or None where there is but one span.
    """
    B, H, L, d = q.shape
    P, T = v.shape[-1], span(L, d)
    states = _states(k, v, precision) if T < L else None
    y, inverse = _like(v), torch.empty(B, H, L, device=v.device, dtype=torch.float32)
    sizes = _constants(v, precision)
    _forward_kernel[(triton.cdiv(L, sizes["C"]), B * H)](
        q, k, v, inverse if states is None else states, y, inverse, *strides(q, k, v, y),
        L, H, d, P, T, triton.cdiv(L, T), d**-0.5, HAS_STATE=states is not None, BK=block(d),
        KIND=_kind(q, k, v), **sizes,
    )  # fmt: skip
    return y, inverse, states


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    inverse: Tensor,
    states: Tensor | None,
    dy: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, each in its dtype and laid out as y is."""
    B, H, L, d = q.shape
    P, T = v.shape[-1], span(L, d)
    dq, dk, dv, c = _like(q), _like(k), _like(v), torch.empty_like(inverse)
    sizes = {"HAS_STATE": states is not None, "BK": block(d), "KIND": _kind(q, k, v)}
    sizes |= _constants(v, precision)
    grid, counts = (triton.cdiv(L, sizes["C"]), B * H), (L, H, d, P, T, triton.cdiv(L, T), d**-0.5)
    _dq_kernel[grid](
        q, k, v, inverse if states is None else states, y, dy, inverse, dq, c,
        *strides(q, k, v, y, dy, dq), *counts, **sizes,
    )  # fmt: skip
    after = None if states is None else _states(q, dy, precision, inverse, c)
    _dkv_kernel[grid](
        q, k, v, inverse if after is None else after, dy, inverse, c, dk, dv,
        *strides(q, k, v, dy, dk, dv), *counts, **sizes,
    )  # fmt: skip
    return dq, dk, dv


def _like(x: Tensor) -> Tensor:
    """Return an empty tensor like x (B, H, L, d) in which the heads of a token lie together."""
    B, H, L, d = x.shape
    return torch.empty(B, L, H, d, device=x.device, dtype=x.dtype).transpose(1, 2)
