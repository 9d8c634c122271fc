"""Fused kernels of `mechbench.ops.channel_decay`: chunks side by side, between them a short scan.

With G the cumulated log decays of a chunk of C tokens (C, K) and * applied channel by channel, each
chunk adds A = (exp(G_C - G) * k)^T v to the state S (K, P) it starts from, and (exp(G) * q)^T dy to
the gradient R of the state it ends with; scans give S and R of all chunks. Inside a chunk

    Z_ts = sum_c q_tc k_sc exp(G_tc - G_sc) for s <= t, else 0,   D = dy v^T
    y  = Z v + (exp(G) * q) S
    dv = Z^T dy + (exp(G_C - G) * k) R
    dq_tc = sum_s D_ts k_sc exp(G_tc - G_sc) + exp(G_tc) (dy S^T)_tc
    dk_sc = sum_t D_ts q_tc exp(G_tc - G_sc) + exp(G_Cc - G_sc) (v R^T)_sc

A pair of positions i and j belongs to the level l = floor(log2(i xor j)): they lie in the halves of
one block of 2^(l+1) positions. With the decay f_i between i and the middle of its block, and x = f
* q in second halves, f * k in first ones, Z is x x^T for all pairs of a level, and the gradient of
x is (D + D^T) x over them. f is the exponential of a sum of decays of one block of 2^l positions;
these are sums of two such sums of the level below, so that nothing is ever subtracted.

The gradient of G over the whole sequence is q * dq - k * dk. Summed from the end of a chunk on, it
is the row sums of S * R there, since scaling that S is scaling all that is read of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import block, head_at, put, rows, strides

_COLUMNS = 16  # entries of a state that a program scans
_CHUNKS = 256  # most chunks that it scans at a time
_VALUES = 64  # most columns of v at a time


@triton.jit
def _log_decays(g, t, L, stride, K, rate, GATED: tl.constexpr, BK: tl.constexpr):
    """Load rows t of the log decays: of rate * logsigmoid(g) with GATED."""
    x = rows(g, t, L, stride, K, BK)
    if GATED:
        x = (tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))) * rate
        x = tl.where((t < L)[:, None], x, 0.0)
    return x


@triton.jit
def _summed(which, x):
    """Return sums of rows of x (C, BK), those in `which` (C, C), close to float32."""
    return tl.dot(tl.where(which, 1.0, 0.0), x, input_precision="tf32x3")


@triton.jit
def _second(i, level):
    """Return which positions lie in the second half of their block, (C, 1)."""
    return ((i >> level) & 1)[:, None] == 1


@triton.jit
def _doubled(before, after, i, level, C: tl.constexpr, BK: tl.constexpr):
    """Return the sums of log decays up to and beyond each position in blocks of twice the size."""
    other = tl.broadcast_to((i ^ (1 << level))[:, None], (C, BK))
    neighbour = tl.gather(before + after, other, 0)
    second = _second(i, level)
    return before + tl.where(second, neighbour, 0.0), after + tl.where(second, 0.0, neighbour)


@triton.jit
def _sums_kernel(
    k, v, g, added, ends, kb, kh, kt, vb, vh, vt, gb, gh, gt, L, H, K, P, N, scale, rate,
    REVERSE: tl.constexpr, GATED: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr,
    LEVELS: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Store what each chunk adds to the state and its log decay G_C; in reverse, to R."""
    place = tl.program_id(0)
    row, n = place // N, place % N
    b, h = row // H, row % H
    k, v, g = head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh), head_at(g, b, h, gb, gh)
    i, col = tl.arange(0, C), tl.arange(0, BK)
    t = n * C + i
    step = _log_decays(g, t, L, gt, K, rate, GATED, BK)
    if REVERSE:
        weight = _summed(i[:, None] >= i[None, :], step)
    else:
        weight = _summed(i[:, None] < i[None, :], step)  # never a difference of large numbers
        tl.store(ends + place.to(tl.int64) * K + col, tl.sum(step, 0), mask=col < K)
    kept = tl.trans(rows(k, t, L, kt, K, BK) * scale * tl.exp(weight))
    for p in range(0, PARTS * BP, BP):
        part = tl.dot(kept, rows(v + p, t, L, vt, P - p, BP), input_precision=PREC)
        at, mask = _columns_at(added, place, p, K, P, BK, BP)
        tl.store(at, part, mask=mask)


@triton.jit
def _columns_at(states, place, p, K, P, BK: tl.constexpr, BP: tl.constexpr):
    """Return where columns from p of the state (K, P) at a place lie, and which there are."""
    row, col = tl.arange(0, BK), p + tl.arange(0, BP)
    mask = (row < K)[:, None] & (col < P)[None, :]
    return states + place.to(tl.int64) * K * P + row[:, None] * P + col[None, :], mask


@triton.jit
def _state(states, place, there, p, K, P, BK: tl.constexpr, BP: tl.constexpr):
    """Load columns from p of the state at a place; zeros where there is none."""
    at, mask = _columns_at(states, place, p, K, P, BK, BP)
    return tl.load(at, mask=mask & there, other=0.0)


@triton.jit
def _then(fall, added, next_fall, next_added):
    return fall * next_fall, added * next_fall + next_added


@triton.jit
def _scan_kernel(
    states, ends, K, P, N, REVERSE: tl.constexpr, T: tl.constexpr, COLUMNS: tl.constexpr
):
    """Turn what each chunk adds into the state after it; in reverse, into R before it."""
    row = tl.program_id(0).to(tl.int64)
    states, ends = states + row * N * K * P, ends + row * N * K
    i, col = tl.arange(0, T), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    carry = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, N, T):
        m = start + i
        n = (N - 1 - m if REVERSE else m).to(tl.int64)[:, None]
        mask = (m < N)[:, None] & (col < K * P)[None, :]
        at = states + n * K * P + col[None, :]
        fall = tl.exp(tl.load(ends + n * K + (col // P)[None, :], mask=mask, other=0.0))
        added = tl.load(at, mask=mask, other=0.0)
        fall, added = tl.associative_scan((fall, added), 0, _then)
        after = added + fall * carry[None, :]
        tl.store(at, after, mask=mask)
        carry = tl.sum(tl.where((i == T - 1)[:, None], after, 0.0), 0)


@triton.jit
def _forward_kernel(
    q, k, v, g, states, y, qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, yb, yh, yt,
    L, H, K, P, N, scale, rate,
    GATED: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr,
    BK: tl.constexpr, BP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0)
    row, n = place // N, place % N
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, y = head_at(g, b, h, gb, gh), head_at(y, b, h, yb, yh)
    i = tl.arange(0, C)
    t = n * C + i
    query, key = rows(q, t, L, qt, K, BK) * scale, rows(k, t, L, kt, K, BK)
    before = _log_decays(g, t, L, gt, K, rate, GATED, BK)
    after = tl.zeros((C, BK), tl.float32)
    apart = i[:, None] ^ i[None, :]
    scores = tl.where(apart == 0, tl.sum(query * key, 1)[:, None], 0.0)
    for level in range(LEVELS):
        second = _second(i, level)
        x = tl.where(second, query, key) * tl.exp(tl.where(second, before, after))
        pairs = tl.dot(x, tl.trans(x), input_precision=PREC)
        scores += tl.where(apart >> level == 1, pairs, 0.0)
        before, after = _doubled(before, after, i, level, C, BK)
    scores = tl.where(i[:, None] >= i[None, :], scores, 0.0)
    query *= tl.exp(before)
    for p in range(0, PARTS * BP, BP):
        out = tl.dot(scores, rows(v + p, t, L, vt, P - p, BP), input_precision=PREC)
        start = _state(states, place - 1, n > 0, p, K, P, BK, BP)
        out += tl.dot(query, start, input_precision=PREC)
        put(y + p, t, L, yt, P - p, out, BP)


@triton.jit
def _backward_kernel(
    q, k, v, g, states, backs, dy, dq, dk, dv, dg,
    qb, qh, qt, kb, kh, kt, vb, vh, vt, gb, gh, gt, yb, yh, yt,
    ob, oh, ot, wb, wh, wt, L, H, K, P, N, scale, rate,
    GATED: tl.constexpr, PREC: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr,
    BK: tl.constexpr, BP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Store all gradients; those of q, k and g are laid out alike."""
    place = tl.program_id(0)
    row, n = place // N, place % N
    b, h = row // H, row % H
    q, k, v = head_at(q, b, h, qb, qh), head_at(k, b, h, kb, kh), head_at(v, b, h, vb, vh)
    g, dy, dv = head_at(g, b, h, gb, gh), head_at(dy, b, h, yb, yh), head_at(dv, b, h, wb, wh)
    dq, dk, dg = head_at(dq, b, h, ob, oh), head_at(dk, b, h, ob, oh), head_at(dg, b, h, ob, oh)
    i = tl.arange(0, C)
    t = n * C + i
    d_scores = tl.zeros((C, C), tl.float32)
    for p in range(0, PARTS * BP, BP):
        value, grad = rows(v + p, t, L, vt, P - p, BP), rows(dy + p, t, L, yt, P - p, BP)
        d_scores += tl.dot(grad, tl.trans(value), input_precision=PREC)
    d_scores = tl.where(i[:, None] > i[None, :], d_scores, tl.trans(d_scores))

    query, key = rows(q, t, L, qt, K, BK) * scale, rows(k, t, L, kt, K, BK)
    before = _log_decays(g, t, L, gt, K, rate, GATED, BK)
    after = tl.zeros((C, BK), tl.float32)
    d_query = tl.zeros((C, BK), tl.float32)
    d_key = tl.zeros((C, BK), tl.float32)
    apart = i[:, None] ^ i[None, :]
    scores = tl.where(apart == 0, tl.sum(query * key, 1)[:, None], 0.0)
    for level in range(LEVELS):
        second = _second(i, level)
        decay = tl.exp(tl.where(second, before, after))
        x = tl.where(second, query, key) * decay
        pairs = tl.dot(x, tl.trans(x), input_precision=PREC)
        scores += tl.where(apart >> level == 1, pairs, 0.0)
        d_pairs = tl.where(apart >> level == 1, d_scores, 0.0)
        d_x = tl.dot(d_pairs, x, input_precision=PREC) * decay
        d_query += tl.where(second, d_x, 0.0)
        d_key += tl.where(second, 0.0, d_x)
        before, after = _doubled(before, after, i, level, C, BK)

    scores = tl.where(i[:, None] <= i[None, :], scores, 0.0)  # Z^T
    lead, rest = tl.exp(before), tl.exp(after)
    d_own = tl.zeros((C,), tl.float32)
    beyond = tl.zeros((BK,), tl.float32)
    for p in range(0, PARTS * BP, BP):
        value, grad = rows(v + p, t, L, vt, P - p, BP), rows(dy + p, t, L, yt, P - p, BP)
        d_own += tl.sum(grad * value, 1)
        start = _state(states, place - 1, n > 0, p, K, P, BK, BP)
        d_query += lead * tl.dot(grad, tl.trans(start), input_precision=PREC)
        back = _state(backs, place + 1, n < N - 1, p, K, P, BK, BP)
        d_key += rest * tl.dot(value, tl.trans(back), input_precision=PREC)
        beyond += tl.sum(_state(states, place, True, p, K, P, BK, BP) * back, 1)
        d_value = tl.dot(scores, grad, input_precision=PREC)
        d_value += tl.dot(key * rest, back, input_precision=PREC)
        put(dv + p, t, L, wt, P - p, d_value, BP)
    # What a token reads of itself does not decay.
    d_fall = _summed(i[:, None] <= i[None, :], query * d_query - key * d_key)
    d_fall += beyond[None, :]
    if GATED:
        x = rows(g, t, L, gt, K, BK)
        tail = tl.exp(-tl.abs(x))
        d_fall *= tl.where(x > 0, tail, 1.0) * rate / (1.0 + tail)
    put(dg, t, L, ot, K, d_fall, BK)
    put(dq, t, L, ot, K, (d_query + d_own[:, None] * key) * scale, BK)
    put(dk, t, L, ot, K, d_key + d_own[:, None] * query, BK)


class Tile(NamedTuple):
    """How a chunk is computed: its tokens, and the warps of its program."""

    chunk: int
    warps: int


def tile(K: int, P: int) -> Tile:
    """Return the tile for states (K, P): short where they are small, as less is computed then."""
    if K * P <= 512 and max(K, P) <= 64:
        return Tile(16, 1)
    return Tile(32, 2 if K <= 16 else 4 if K <= 64 else 8)


class _Call:
    """What all launches of a call share."""

    def __init__(self, q: Tensor, v: Tensor, temperature: float | None, precision: str):
        B, H, L, P = v.shape
        K = q.shape[-1]
        chunk, warps = tile(K, P)
        N = triton.cdiv(L, chunk)
        self.shape, self.grid, self.sizes = (B, H, N, K, P), (B * H * N,), (L, H, K, P, N)
        self.rate = 1.0 if temperature is None else 1.0 / temperature
        parts = min(_VALUES, block(P))
        self.options = {
            "GATED": temperature is not None, "PREC": precision, "C": chunk,
            "LEVELS": chunk.bit_length() - 1, "BK": block(K), "BP": parts,
            "PARTS": triton.cdiv(P, parts), "num_warps": warps, "num_stages": 1,
        }  # fmt: skip

    def states(
        self, k: Tensor, v: Tensor, g: Tensor, ends: Tensor, scale: float, *, reverse: bool
    ) -> Tensor:
        """Return S after each chunk, and store the chunks' log decays in `ends`.

        In reverse, return R before each chunk, and read `ends`.
        """
        B, H, N, K, P = self.shape
        out = torch.empty(self.shape, device=v.device, dtype=torch.float32)
        _sums_kernel[self.grid](
            k, v, g, out, ends, *strides(k, v, g), *self.sizes, scale, self.rate,
            REVERSE=reverse, **self.options,
        )  # fmt: skip
        _scan_kernel[(B * H, triton.cdiv(K * P, _COLUMNS))](
            out, ends, K, P, N, REVERSE=reverse, T=min(_CHUNKS, triton.next_power_of_2(N)),
            COLUMNS=_COLUMNS, num_warps=4,
        )  # fmt: skip
        return out


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    temperature: float | None,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute y, and what the backward needs: S after each chunk, and the chunks' log decays.

    Args:
        q: (B, H, L, K), the last stride 1; so k, v and g.
        k: (B, H, L, K).
        v: (B, H, L, P).
        g: (B, H, L, K), at most 0.
        scale: factor of q.
        temperature: if given, the log decays are logsigmoid(g) / temperature.
        precision: how products round: "tf32", or "tf32x3" for close to float32.

    Returns:
        y (B, H, L, P) in v's dtype, laid out so that its heads join without a copy; states
        (B, H, chunks, K, P) and log decays (B, H, chunks, K), float32.
    """
    call = _Call(q, v, temperature, precision)
    ends = torch.empty(call.shape[:-1], device=v.device, dtype=torch.float32)
    states = call.states(k, v, g, ends, 1.0, reverse=False)
    y = _tokens_first(v)
    _forward_kernel[call.grid](
        q, k, v, g, states, y, *strides(q, k, v, g, y), *call.sizes, scale, call.rate,
        **call.options,
    )  # fmt: skip
    return y, states, ends


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    states: Tensor,
    ends: Tensor,
    dy: Tensor,
    scale: float,
    temperature: float | None,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v and g, in their dtypes and laid out as y."""
    call = _Call(q, v, temperature, precision)
    backs = call.states(q, dy, g, ends, scale, reverse=True)
    dq, dk, dv, dg = (_tokens_first(x) for x in (q, k, v, g))
    _backward_kernel[call.grid](
        q, k, v, g, states, backs, dy, dq, dk, dv, dg, *strides(q, k, v, g, dy, dq, dv),
        *call.sizes, scale, call.rate, **call.options,
    )  # fmt: skip
    return dq, dk, dv, dg


def _tokens_first(x: Tensor) -> Tensor:
    """Return an empty (B, H, L, d) whose heads join without a copy."""
    B, H, L, d = x.shape
    return torch.empty(B, L, H, d, device=x.device, dtype=x.dtype).transpose(1, 2)
