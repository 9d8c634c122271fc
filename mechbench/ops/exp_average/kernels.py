"""Kernels of `mechbench.ops.exp_average`: averages whose weights are exponentials, in one pass.

The sequence is cut into segments. A first kernel sums up each segment, all side by side; in a
second one a program joins the sums before its segment and walks over it in tiles of T tokens. The
terms that a tile's token does not share with all of the tile are added lag by lag: its window, and
up to T - 1 terms beyond. With l_t the logarithm of the denominator and G_ts the
gradient of an exponent,

    p_ts = exp(k_s + bias_ts - l_t),   G_ts = p_ts dy_t (v_s - y_t)
    dv_s = sum_t p_ts dy_t,   dk_s = sum_t G_ts
    dnear_j = sum_t G_t,t-j,   ddecay = - sum_ts max(0, t - s - W) G_ts

where p_ts factors beyond the window, so that the backward is a pass of the same kind from the end,
with sums of exp(-l_t) dy_t and exp(-l_t) dy_t y_t, and of their derivatives by the decay. All sums
are relative to their largest exponent. A program is one warp: it never waits for another.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_T, _WIDTH = 8, 32  # tokens and channels of a tile
_ROWS = 16  # segments whose sums are joined at a time
_PROGRAMS = 4096  # fill a large GPU
_MAX_SEGMENTS = 256  # every program reads the sums of those before it
_MIN_TILES = 4  # of a segment, or joining costs more than walking

_EMPTY = tl.constexpr(-1e30)  # peak of an empty sum: finite, as differences of infinities are NaN


@triton.jit
def _rows(base, at, step, mask, other):
    """Load rows `at` of the columns at `base` as float32."""
    place = base[None, :] + at.to(tl.int64)[:, None] * step
    return tl.load(place, mask=mask, other=other).to(tl.float32)


@triton.jit
def _at(place, mask, other):
    return tl.load(place, mask=mask, other=other).to(tl.float32)


@triton.jit
def _put(base, at, step, mask, x):
    place = base[None, :] + at.to(tl.int64)[:, None] * step
    tl.store(place, x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _weights(peak, x):
    """Return the peak (BD,) with exponents x (rows, BD), and both sides' weights relative to it."""
    top = tl.maximum(peak, tl.max(x, 0))
    return top, tl.exp(peak - top), tl.exp(x - top[None, :])


@triton.jit
def _forward_sums_kernel(
    k, v, decay, states, kb, kt, vb, vt, L, D, W, S, segments,
    T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Store peak, num and den of what leaves the window while a segment passes, at its end."""
    segment, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    col = tl.program_id(1) * BD + tl.arange(0, BD)
    has = col < D
    fall = tl.load(decay + col, mask=has, other=0.0)
    k, v = k + b * kb + col, v + b * vb + col
    i = tl.arange(0, T)
    left = (T - 1 - i).to(tl.float32)[:, None]
    peak = tl.full((BD,), _EMPTY, tl.float32)
    num, den = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    for start in range(segment * S, segment * S + S, T):
        s = start - W + 1 + i
        inside = ((s >= 0) & (s < L))[:, None] & has[None, :]
        x = _rows(k, s, kt, inside, float("-inf")) - left * fall[None, :]
        peak, keep, weight = _weights(peak - T * fall, x)
        num = num * keep + tl.sum(weight * _rows(v, s, vt, inside, 0.0), 0)
        den = den * keep + tl.sum(weight, 0)
    place = states + (b * segments + segment) * 3 * D + col
    tl.store(place, peak, mask=has)
    tl.store(place + D, num, mask=has)
    tl.store(place + 2 * D, den, mask=has)


@triton.jit
def _forward_kernel(
    k, v, near, decay, states, y, lse, kb, kt, vb, vt, L, D, W, S, segments,
    T: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    segment, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    col = tl.program_id(1) * BD + tl.arange(0, BD)
    has = col < D
    fall = tl.load(decay + col, mask=has, other=0.0)
    k, v = k + b * kb + col, v + b * vb + col
    y, lse = y + b * L * D + col, lse + b * L * D + col
    states = states + b * segments * 3 * D + col
    peak = tl.full((BD,), _EMPTY, tl.float32)
    num, den = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    for first in range(0, segment, ROWS):
        r = first + tl.arange(0, ROWS)
        inside = (r < segment)[:, None] & has[None, :]
        steps = ((segment - 1 - r) * S).to(tl.float32)
        x = _rows(states, r, 3 * D, inside, float("-inf")) - steps[:, None] * fall[None, :]
        peak, keep, weight = _weights(peak, x)
        num = num * keep + tl.sum(weight * _rows(states + D, r, 3 * D, inside, 0.0), 0)
        den = den * keep + tl.sum(weight * _rows(states + 2 * D, r, 3 * D, inside, 0.0), 0)
    i = tl.arange(0, T)
    passed, left = i.to(tl.float32)[:, None], (T - 1 - i).to(tl.float32)[:, None]
    near_at = near + 0 * i[:, None] + col[None, :]  # repeated, as the other tiles lie
    for start in range(segment * S, tl.minimum(segment * S + S, L), T):
        t = start + i
        live = (t < L)[:, None] & has[None, :]
        k_at = k[None, :] + t.to(tl.int64)[:, None] * kt
        v_at = v[None, :] + t.to(tl.int64)[:, None] * vt
        carried = peak[None, :] - passed * fall[None, :]
        top = carried
        for j in range(W):
            inside = live & (t >= j)[:, None]
            x = _at(k_at - j * kt, inside, float("-inf"))
            top = tl.maximum(top, x + _at(near_at + j * D, live, 0.0))
        for j in range(T - 1):
            inside = live & ((i > j) & (t >= W + j))[:, None]
            x = _at(k_at - (W + j) * kt, inside, float("-inf"))
            top = tl.maximum(top, x - j * fall[None, :])
        weight = tl.exp(carried - top)
        above, below = weight * num[None, :], weight * den[None, :]
        for j in range(W):
            inside = live & (t >= j)[:, None]
            x = _at(k_at - j * kt, inside, float("-inf"))
            weight = tl.exp(x + _at(near_at + j * D, live, 0.0) - top)
            above += weight * _at(v_at - j * vt, inside, 0.0)
            below += weight
        for j in range(T - 1):
            inside = live & ((i > j) & (t >= W + j))[:, None]
            x = _at(k_at - (W + j) * kt, inside, float("-inf"))
            weight = tl.exp(x - j * fall[None, :] - top)
            above += weight * _at(v_at - (W + j) * vt, inside, 0.0)
            below += weight
        below = tl.where(live, below, 1.0)
        _put(y, t, D, live, above / below)
        _put(lse, t, D, live, top + tl.log(below))
        s = start - W + 1 + i
        inside = ((s >= 0) & (s < L))[:, None] & has[None, :]
        x = _rows(k, s, kt, inside, float("-inf")) - left * fall[None, :]
        peak, keep, weight = _weights(peak - T * fall, x)
        num = num * keep + tl.sum(weight * _rows(v, s, vt, inside, 0.0), 0)
        den = den * keep + tl.sum(weight, 0)


@triton.jit
def _backward_sums_kernel(
    decay, y, lse, dy, states, yb, yt, L, D, W, S, segments,
    T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Store the peak and the sums of what is beyond the window of the token before a segment.

    Of each segment the part that is not beyond the window of its own last token: with dy, with
    dy y, and both times the steps of decay. The first segment's is not needed.
    """
    segment, b = tl.program_id(0) + 1, tl.program_id(2).to(tl.int64)
    col = tl.program_id(1) * BD + tl.arange(0, BD)
    has = col < D
    fall = tl.load(decay + col, mask=has, other=0.0)
    y, lse, dy = y + b * L * D + col, lse + b * L * D + col, dy + b * yb + col
    i = tl.arange(0, T)
    peak = tl.full((BD,), _EMPTY, tl.float32)
    one, two = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    d_one, d_two = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    for start in range(0, S, T):
        t = segment * S + W - 1 + start + i
        inside = (t < L)[:, None] & has[None, :]
        steps = (start + i).to(tl.float32)[:, None]
        x = -_rows(lse, t, D, inside, float("inf")) - steps * fall[None, :]
        peak, keep, weight = _weights(peak, x)
        part = weight * _rows(dy, t, yt, inside, 0.0)
        product = part * _rows(y, t, D, inside, 0.0)
        one, two = one * keep + tl.sum(part, 0), two * keep + tl.sum(product, 0)
        d_one = d_one * keep + tl.sum(steps * part, 0)
        d_two = d_two * keep + tl.sum(steps * product, 0)
    place = states + (b * segments + segment) * 5 * D + col
    tl.store(place, peak, mask=has)
    tl.store(place + D, one, mask=has)
    tl.store(place + 2 * D, two, mask=has)
    tl.store(place + 3 * D, d_one, mask=has)
    tl.store(place + 4 * D, d_two, mask=has)


@triton.jit
def _backward_kernel(
    k, v, near, decay, states, y, lse, dy, dk, dv, dnear, ddecay,
    kb, kt, vb, vt, yb, yt, L, D, W, S, segments,
    T: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    segment, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    col = tl.program_id(1) * BD + tl.arange(0, BD)
    has = col < D
    fall = tl.load(decay + col, mask=has, other=0.0)
    k, v, dy = k + b * kb + col, v + b * vb + col, dy + b * yb + col
    y, lse = y + b * L * D + col, lse + b * L * D + col
    dk, dv = dk + b * L * D + col, dv + b * L * D + col
    states = states + b * segments * 5 * D + col
    place = b * segments + segment
    dnear = dnear + place * W * D + col
    # Sums over the tokens beyond the window of the tile's last one, as in the kernel above.
    peak = tl.full((BD,), _EMPTY, tl.float32)
    one, two = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    d_one, d_two = tl.zeros((BD,), tl.float32), tl.zeros((BD,), tl.float32)
    for first in range(segment + 1, segments, ROWS):
        r = first + tl.arange(0, ROWS)
        inside = (r < segments)[:, None] & has[None, :]
        steps = ((r - segment - 1) * S).to(tl.float32)[:, None]
        x = _rows(states, r, 5 * D, inside, float("-inf")) - steps * fall[None, :]
        peak, keep, weight = _weights(peak, x)
        part = weight * _rows(states + D, r, 5 * D, inside, 0.0)
        product = weight * _rows(states + 2 * D, r, 5 * D, inside, 0.0)
        one, two = one * keep + tl.sum(part, 0), two * keep + tl.sum(product, 0)
        part = steps * part + weight * _rows(states + 3 * D, r, 5 * D, inside, 0.0)
        product = steps * product + weight * _rows(states + 4 * D, r, 5 * D, inside, 0.0)
        d_one, d_two = d_one * keep + tl.sum(part, 0), d_two * keep + tl.sum(product, 0)
    i = tl.arange(0, T)
    passed, left = i.to(tl.float32)[:, None], (T - 1 - i).to(tl.float32)[:, None]
    near_at = near + 0 * i[:, None] + col[None, :]  # repeated, as the other tiles lie
    slope = tl.zeros((T, BD), tl.float32)  # minus the gradient of the decay
    tiles = (tl.minimum(S, L - segment * S) + T - 1) // T
    for step in range(tiles):
        start = segment * S + (tiles - 1 - step) * T
        s = start + i
        live = (s < L)[:, None] & has[None, :]
        key = _rows(k, s, kt, live, float("-inf"))
        value = _rows(v, s, vt, live, 0.0)
        weight = tl.exp(key + (peak[None, :] - left * fall[None, :]))
        d_value = weight * one[None, :]
        d_key = weight * (value * one[None, :] - two[None, :])
        slope += left * d_key + weight * (value * d_one[None, :] - d_two[None, :])
        y_at = y[None, :] + s.to(tl.int64)[:, None] * D
        lse_at = lse[None, :] + s.to(tl.int64)[:, None] * D
        dy_at = dy[None, :] + s.to(tl.int64)[:, None] * yt
        for j in range(W):
            inside = live & (s + j < L)[:, None]
            x = key - _at(lse_at + j * D, inside, float("inf"))
            weight = tl.exp(x + _at(near_at + j * D, live, 0.0))
            part = weight * _at(dy_at + j * yt, inside, 0.0)
            d_value += part
            part *= value - _at(y_at + j * D, inside, 0.0)
            d_key += part
            before = tl.load(dnear + j * D, mask=has & (step > 0), other=0.0)
            tl.store(dnear + j * D, before + tl.sum(part, 0), mask=has)
        for j in range(T - 1):
            inside = live & ((s + W + j < L) & (T - 1 - i > j))[:, None]
            x = key - _at(lse_at + (W + j) * D, inside, float("inf"))
            weight = tl.exp(x - j * fall[None, :])
            part = weight * _at(dy_at + (W + j) * yt, inside, 0.0)
            d_value += part
            part *= value - _at(y_at + (W + j) * D, inside, 0.0)
            d_key += part
            slope += j * part
        _put(dk, s, D, live, d_key)
        _put(dv, s, D, live, d_value)
        t = start + W - 1 + i
        inside = (t < L)[:, None] & has[None, :]
        x = -_rows(lse, t, D, inside, float("inf")) - passed * fall[None, :]
        peak, keep, weight = _weights(peak - T * fall, x)
        part = weight * _rows(dy, t, yt, inside, 0.0)
        product = part * _rows(y, t, D, inside, 0.0)
        d_one = (d_one + T * one) * keep + tl.sum(passed * part, 0)
        d_two = (d_two + T * two) * keep + tl.sum(passed * product, 0)
        one, two = one * keep + tl.sum(part, 0), two * keep + tl.sum(product, 0)
        tl.debug_barrier()  # the next tile reads dnear, which other threads may have stored
    tl.store(ddecay + place * D + col, -tl.sum(slope, 0), mask=has)


def _cut(k: Tensor) -> tuple[int, int, int]:
    """Return how wide a tile is, how many tokens a segment has, and how many segments there are."""
    B, L, D = k.shape
    width = min(_WIDTH, triton.next_power_of_2(D))
    wanted = min(_MAX_SEGMENTS, triton.cdiv(_PROGRAMS, B * triton.cdiv(D, width)))
    tiles = max(_MIN_TILES, triton.cdiv(triton.cdiv(L, _T), wanted))
    return width, _T * tiles, triton.cdiv(L, _T * tiles)


def forward(k: Tensor, v: Tensor, near: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the average, and what the backward needs.

    Args:
        k: (B, L, D), the last stride 1; so v.
        v: (B, L, D).
        near: (W, D) float32, contiguous; W at most L.
        decay: (D,) float32.

    Returns:
        y (B, L, D) in v's dtype, and l (B, L, D) float32.
    """
    B, L, D = v.shape
    width, S, segments = _cut(k)
    y = torch.empty(B, L, D, device=v.device, dtype=v.dtype)
    lse = torch.empty(B, L, D, device=v.device, dtype=torch.float32)
    states = torch.empty(B, segments, 3, D, device=v.device, dtype=torch.float32)
    blocks = triton.cdiv(D, width)
    sizes = (*k.stride()[:2], *v.stride()[:2], L, D, len(near), S, segments)
    if segments > 1:
        _forward_sums_kernel[(segments - 1, blocks, B)](
            k, v, decay, states, *sizes, T=_T, BD=width, num_warps=1
        )
    _forward_kernel[(segments, blocks, B)](
        k, v, near, decay, states, y, lse, *sizes, T=_T, BD=width, ROWS=_ROWS, num_warps=1
    )
    return y, lse


def backward(
    k: Tensor, v: Tensor, near: Tensor, decay: Tensor, y: Tensor, lse: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of k and v in their dtypes, of near (W, D) and decay (D,) in float32.

    `dy` has 1 as its last stride; the others are as `forward` took and gave them.
    """
    B, L, D = v.shape
    width, S, segments = _cut(k)
    dk = torch.empty(B, L, D, device=k.device, dtype=k.dtype)
    dv = torch.empty(B, L, D, device=v.device, dtype=v.dtype)
    states, dnear, ddecay = (
        torch.empty(B, segments, rows, D, device=v.device, dtype=torch.float32)
        for rows in (5, len(near), 1)
    )
    blocks = triton.cdiv(D, width)
    sizes = (*dy.stride()[:2], L, D, len(near), S, segments)
    if segments > 1:
        _backward_sums_kernel[(segments - 1, blocks, B)](
            decay, y, lse, dy, states, *sizes, T=_T, BD=width, num_warps=1
        )
    _backward_kernel[(segments, blocks, B)](
        k, v, near, decay, states, y, lse, dy, dk, dv, dnear, ddecay,
        *k.stride()[:2], *v.stride()[:2], *sizes, T=_T, BD=width, ROWS=_ROWS, num_warps=1,
    )  # fmt: skip
    return dk, dv, summed(dnear.flatten(0, 1)), summed(ddecay.flatten(0, 2))
