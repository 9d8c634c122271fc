"""Fused kernels of `mechbench.ops.selective_scan`: states stay in registers.

A program takes a block of channels of one sequence and walks over tiles of tokens, whose maps
h -> exp(-dt r) h + dt x b it composes by a scan. The forward stores the state before every chunk of
16 tokens; the backward computes a chunk's states again from there (Gu & Dao 2023, section 3.3.2)
and goes through it from the end with the gradient R of the states,

    R_t = dy_t c_t + exp(-dt_{t+1} r) R_{t+1},   P_t = exp(-dt_t r) h_{t-1}
    d(dt x)_t = R_t b_t,   db_t = dt x R_t,   dc_t = dy_t h_t,   d(dt r)_t = -R_t P_t

Sums over channels, tokens and sequences that no program sees whole go to a buffer first. Where
there are too few programs, sequences are cut into segments: first each finds the state (gradient)
it leaves behind by itself, then `diagonal_scan` joins them, then every segment has its true start.

A tile has the axes (token, half of the state, channel, number in the half): laid out so, a thread
holds all tokens of its channels. The scan, and turning a tile round, then cost no exchange between
threads (`reverse` of Triton's scan would), and sums over states and channels few.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.diagonal_scan.kernels import forward as diagonal_scan
from mechbench.ops.kernels.sums import summed

CHUNK = 16  # tokens between stored states: one number of them per number of x, for 16 states
_FORWARD, _BACKWARD = 256, 512  # numbers of a program's state
_ENOUGH = 256  # programs of 2 warps that keep a GPU busy; 4 warps count as two


@triton.jit
def _compose(a, h, next_a, next_h):
    return a * next_a, next_a * h + next_h


@triton.jit
def _enter(a, h, p, next_a, next_h, next_p):
    """As `_compose`, with what is left of the state before a step beside the state after it."""
    kept = next_a * h
    return a * next_a, kept + next_h, kept + next_p


@triton.jit
def _leave(a, before, q, g, next_a, next_before, next_q, next_g):
    """The maps of gradients: q leaves a step, g is that of its state, `before` a without its a."""
    return a * next_a, a * next_before, next_a * q + next_q, next_before * q + next_g


@triton.jit
def _by_channel(base, t, e, st, se, L, E):
    """Load (tokens, channels) as float32, zeros beyond either end."""
    mask = (t < L)[:, None] & (e < E)[None, :]
    place = base + t.to(tl.int64)[:, None] * st + e.to(tl.int64)[None, :] * se
    return tl.load(place, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _by_state(base, t, n, st, sn, L, N):
    """Load (tokens, N1, 1, N2) as float32, zeros beyond either end."""
    mask = (t < L)[:, None, None] & (n < N)[None]
    place = base + t.to(tl.int64)[:, None, None] * st + n[None] * sn
    return tl.load(place, mask=mask, other=0.0).to(tl.float32)[:, :, None, :]


@triton.jit
def _put(base, t, e, st, se, L, E, x):
    mask = (t < L)[:, None] & (e < E)[None, :]
    place = base + t.to(tl.int64)[:, None] * st + e.to(tl.int64)[None, :] * se
    tl.store(place, x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _here(blocks, E, N, W: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr):
    """Return the sequence, the channels, the states' numbers, and where a state lies."""
    row = (tl.program_id(0) // blocks).to(tl.int64)
    e = tl.program_id(0) % blocks * W + tl.arange(0, W)
    n = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    inside = (e < E)[None, :, None] & (n < N)[:, None, :]
    return row, e, n, e[None, :, None] * N + n[:, None, :], inside


@triton.jit
def _decay(step, rate):
    """Return exp(-dt r), (tokens, N1, channels, N2)."""
    return tl.exp2(step[:, None, :, None] * (rate * -1.4426950408889634)[None])


@triton.jit
def _at(i, here, x):
    """Return x (tokens, N1, channels, N2) at one token, zeros at the others."""
    return tl.where((i == here)[:, None, None, None], x, 0.0)


@triton.jit
def _own_kernel(
    v, dt, rate, key, own, totals, vb, vt, ve, sb, st, se, kb, kt, kn, L, E, N, blocks, span,
    BACK: tl.constexpr, T: tl.constexpr, W: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr,
):  # fmt: skip
    """Store the state that a segment ends with by itself, and its sum of dt.

    Backwards: the gradient that it hands to the state before it, with the last segment first.
    """
    row, e, n, place, inside = _here(blocks, E, N, W, N1, N2)
    segment, segments = tl.program_id(1), tl.num_programs(1)
    v, dt, key = v + row * vb, dt + row * sb, key + row * kb
    i = tl.arange(0, T)
    r = tl.load(rate + place, mask=inside, other=0.0)
    state, total = tl.zeros((N1, W, N2), tl.float32), tl.zeros((W,), tl.float32)
    for k in tl.range(0, span // T, num_stages=3):
        t = k * T + i
        if BACK:
            t = span - 1 - t
        t += segment * span
        step, value = _by_channel(dt, t, e, st, se, L, E), _by_channel(v, t, e, vt, ve, L, E)
        a = _decay(step, r)
        if BACK:
            new = value[:, None, :, None] * _by_state(key, t, n, kt, kn, L, N)
            new = a * (new + _at(i, 0, state[None]))
        else:
            new = (step * value)[:, None, :, None] * _by_state(key, t, n, kt, kn, L, N)
            new += _at(i, 0, a * state[None])
        _, h = tl.associative_scan((a, new), 0, _compose)
        state = tl.sum(_at(i, T - 1, h), 0)
        total += tl.sum(step, 0)
    at = row * segments + (segments - 1 - segment if BACK else segment)
    tl.store(own + at * E * N + place, state, mask=inside)
    tl.store(totals + at * E + e, total, mask=e < E)


@triton.jit
def _forward_kernel(
    x, dt, rate, b, c, skip, joined, y, starts,
    xb, xt, xe, sb, st, se, bb, bt, bn, cb, ct, cn, L, E, N, blocks, span, chunks,
    T: tl.constexpr, W: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr,
):  # fmt: skip
    """Store y, and the state before every tile of T tokens."""
    row, e, n, place, inside = _here(blocks, E, N, W, N1, N2)
    segment = tl.program_id(1)
    x, dt, b, c = x + row * xb, dt + row * sb, b + row * bb, c + row * cb
    y, starts = y + row * L * E, starts + row * chunks * E * N
    i = tl.arange(0, T)
    r = tl.load(rate + place, mask=inside, other=0.0)
    direct = tl.load(skip + e, mask=e < E, other=0.0).to(tl.float32)
    at = (row * tl.num_programs(1) + segment - 1) * E * N
    state = tl.load(joined + at + place, mask=inside & (segment > 0), other=0.0)
    for k in tl.range(0, tl.cdiv(tl.minimum(span, L - segment * span), T), num_stages=3):
        t = segment * span + k * T + i
        at = (segment * (span // T) + k).to(tl.int64) * E * N
        tl.store(starts + at + place, state, mask=inside)
        step, value = _by_channel(dt, t, e, st, se, L, E), _by_channel(x, t, e, xt, xe, L, E)
        a = _decay(step, r)
        new = (step * value)[:, None, :, None] * _by_state(b, t, n, bt, bn, L, N)
        new += _at(i, 0, a * state[None])
        _, h = tl.associative_scan((a, new), 0, _compose)
        state = tl.sum(_at(i, T - 1, h), 0)
        out = tl.sum(tl.sum(h * _by_state(c, t, n, ct, cn, L, N), 1), 2)
        _put(y, t, e, E, 1, L, E, out + direct[None, :] * value)


@triton.jit
def _backward_kernel(
    x, dt, rate, b, c, skip, joined, starts, dy, dx, d_dt, d_rate, db, dc, d_skip,
    xb, xt, xe, sb, st, se, bb, bt, bn, cb, ct, cn, yb, yt, ye, ob, ot, oe,
    B, L, E, N, blocks, span, chunks,
    T: tl.constexpr, W: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr,
):  # fmt: skip
    """Store all gradients; a chunk is two tiles of T tokens."""
    row, e, n, place, inside = _here(blocks, E, N, W, N1, N2)
    segment, segments = tl.program_id(1), tl.num_programs(1)
    x, dt, b, c = x + row * xb, dt + row * sb, b + row * bb, c + row * cb
    dy, dx, d_dt = dy + row * yb, dx + row * ob, d_dt + row * L * E
    starts += row * chunks * E * N
    share = (tl.program_id(0) % blocks).to(tl.int64) * B + row
    db, dc = db + share * L * N, dc + share * L * N
    i = tl.arange(0, T)
    r = tl.load(rate + place, mask=inside, other=0.0)
    direct = tl.load(skip + e, mask=e < E, other=0.0).to(tl.float32)
    at = (row * segments + segments - 2 - segment) * E * N  # the last segment stands first
    back = tl.load(joined + at + place, mask=inside & (segment < segments - 1), other=0.0)
    sum_rate, sum_skip = tl.zeros((N1, W, N2), tl.float32), tl.zeros((W,), tl.float32)
    count = tl.cdiv(tl.minimum(span, L - segment * span), 2 * T)
    for k in tl.range(0, count, num_stages=2):
        chunk = segment * (span // (2 * T)) + count - 1 - k
        start = tl.load(starts + chunk.to(tl.int64) * E * N + place, mask=inside, other=0.0)
        t = chunk * 2 * T + i
        step = _by_channel(dt, t, e, st, se, L, E)
        w = step * _by_channel(x, t, e, xt, xe, L, E)
        a = _decay(step, r)
        new = w[:, None, :, None] * _by_state(b, t, n, bt, bn, L, N)
        _, h = tl.associative_scan((a, new + _at(i, 0, a * start[None])), 0, _compose)
        middle = tl.sum(_at(i, T - 1, h), 0)
        for half in tl.static_range(2):
            t = (chunk * 2 + 1 - half) * T + i
            state = middle if half == 0 else start
            step, value = _by_channel(dt, t, e, st, se, L, E), _by_channel(x, t, e, xt, xe, L, E)
            w = (step * value)[:, None, :, None]
            key = _by_state(b, t, n, bt, bn, L, N)
            grad = _by_channel(dy, t, e, yt, ye, L, E)
            a = _decay(step, r)
            held = _at(i, 0, a * state[None])
            _, h, p = tl.associative_scan((a, w * key + held, held), 0, _enter)
            mask = (t < L)[:, None, None] & (n < N)[None]
            sums = t.to(tl.int64)[:, None, None] * N + n[None]
            tl.store(dc + sums, tl.sum(grad[:, None, :, None] * h, 2), mask=mask)

            g = grad[:, None, :, None] * _by_state(c, t, n, ct, cn, L, N)
            g = tl.flip(g + _at(i, T - 1, back[None]), 0)
            a = tl.flip(a, 0)
            one = tl.full(a.shape, 1.0, tl.float32)
            _, _, q, g = tl.associative_scan((a, one, a * g, g), 0, _leave)
            back = tl.sum(_at(i, T - 1, q), 0)
            g = tl.flip(g, 0)
            tl.store(db + sums, tl.sum(w * g, 2), mask=mask)
            dw = tl.sum(tl.sum(g * key, 1), 2)
            p *= g
            fall = tl.sum(tl.sum(p * r[None], 1), 2)
            sum_rate += tl.sum(p * step[:, None, :, None], 0)
            sum_skip += tl.sum(grad * value, 0)
            _put(dx, t, e, ot, oe, L, E, dw * step + direct[None, :] * grad)
            _put(d_dt, t, e, E, 1, L, E, dw * value - fall)
    at = row * segments + segment
    tl.store(d_rate + at * E * N + place, -sum_rate, mask=inside)
    tl.store(d_skip + at * E + e, sum_skip, mask=e < E)


class Plan(NamedTuple):
    """How the work is cut: programs along channels and along the sequence."""

    tile: dict[str, int]
    blocks: int
    segments: int
    span: int  # tokens of a segment

    @property
    def numbers(self) -> tuple[int, int]:
        """What the kernels are told: blocks and span."""
        return self.blocks, self.span


def plan(B: int, L: int, E: int, N: int, numbers: int, tokens: int, enough: int) -> Plan:
    """Cut (B, L, E) into programs that hold `numbers` numbers of states."""
    n = triton.next_power_of_2(N)
    width = min(64, max(1, numbers // n), triton.next_power_of_2(E))
    blocks = triton.cdiv(E, width)
    segments = 1 if B * blocks >= enough // 2 else triton.cdiv(enough, B * blocks)
    span = triton.cdiv(triton.cdiv(L, segments), CHUNK) * CHUNK
    half = max(1, n // 2)
    tile = {"T": tokens, "W": width, "N1": n // half, "N2": half, "num_warps": numbers // 128}
    return Plan(tile, blocks, triton.cdiv(L, span), span)


def _joined(v: Tensor, dt: Tensor, rate: Tensor, key: Tensor, cut: Plan, *, back: bool) -> Tensor:
    """Return the state each segment ends with, (B, segments, E N), or the gradients backwards."""
    B, L, E = dt.shape
    if cut.segments == 1:
        return rate
    own = torch.empty(B, cut.segments, *rate.shape, device=dt.device, dtype=torch.float32)
    totals = torch.empty(B, cut.segments, E, device=dt.device, dtype=torch.float32)
    _own_kernel[(B * cut.blocks, cut.segments)](
        v, dt, rate, key, own, totals, *v.stride(), *dt.stride(), *key.stride(),
        L, *rate.shape, *cut.numbers, BACK=back, **{**cut.tile, "T": CHUNK},
    )  # fmt: skip
    return diagonal_scan((-totals[..., None] * rate).exp().flatten(2), own.flatten(2))


def forward(
    x: Tensor, dt: Tensor, rate: Tensor, b: Tensor, c: Tensor, skip: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y (B, L, E) in the widest type of x, dt and skip, and the states before every chunk.

    Args:
        x: (B, L, E), as dt of any strides.
        dt: (B, L, E).
        rate: (E, N), float32 and contiguous.
        b: (B, L, N), as c of any strides.
        c: (B, L, N).
        skip: (E,), contiguous.
    """
    B, L, E = x.shape
    cut = plan(B, L, E, rate.shape[1], _FORWARD, CHUNK, 2 * _ENOUGH)
    joined = _joined(x, dt, rate, b, cut, back=False)
    kind = torch.promote_types(torch.promote_types(x.dtype, dt.dtype), skip.dtype)
    y = torch.empty(B, L, E, device=x.device, dtype=kind)
    chunks = triton.cdiv(L, CHUNK)
    starts = torch.empty(B, chunks, *rate.shape, device=x.device, dtype=torch.float32)
    _forward_kernel[(B * cut.blocks, cut.segments)](
        x, dt, rate, b, c, skip, joined, y, starts,
        *x.stride(), *dt.stride(), *b.stride(), *c.stride(),
        L, *rate.shape, *cut.numbers, chunks, **cut.tile,
    )  # fmt: skip
    return y, starts


def backward(
    x: Tensor,
    dt: Tensor,
    rate: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    starts: Tensor,
    dy: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of x and dt in their types, of rate, b, c and skip in float32."""
    B, L, E = x.shape
    N = rate.shape[1]
    cut = plan(B, L, E, N, _BACKWARD, CHUNK // 2, _ENOUGH)
    joined = _joined(dy, dt, rate, c, cut, back=True)
    dx, d_dt = torch.empty_like(x), torch.empty(B, L, E, device=x.device, dtype=dt.dtype)
    db, dc = torch.empty(2, cut.blocks, B, L, N, device=x.device, dtype=torch.float32)
    d_rate = torch.empty(B, cut.segments, E, N, device=x.device, dtype=torch.float32)
    d_skip = torch.empty(B, cut.segments, E, device=x.device, dtype=torch.float32)
    _backward_kernel[(B * cut.blocks, cut.segments)](
        x, dt, rate, b, c, skip, joined, starts, dy, dx, d_dt, d_rate, db, dc, d_skip,
        *x.stride(), *dt.stride(), *b.stride(), *c.stride(), *dy.stride(), *dx.stride(),
        B, L, E, N, *cut.numbers, starts.shape[1], **cut.tile,
    )  # fmt: skip
    return (
        dx,
        d_dt,
        summed(d_rate.flatten(0, 1)),
        db.sum(0),
        dc.sum(0),
        summed(d_skip.flatten(0, 1)),
    )
