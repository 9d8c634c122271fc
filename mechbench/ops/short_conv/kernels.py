"""Kernels of `mechbench.ops.short_conv`: tokens first, one pass over memory in each direction.

With p_t = sum_k w_k u_{t-k} + b before the activation and g_t = dy_t act'(p_t),

    du_t = sum_k w_k g_{t+k},   dw_k = sum_t g_t u_{t-k},   db = sum_t g_t

In the backward a program walks along several runs of tokens at once, whichever sequences they
belong to, and keeps the last K values of u and of g in registers, so that each is loaded or
computed once. It begins K - 1 tokens before a run, for u, and ends K - 1 behind it, for g.
"""

# Tuples grow by concatenation, for Triton cannot unpack into one.
# ruff: noqa: RUF005
# mypy: disable-error-code="assignment, misc"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_COLUMNS = 64  # channels of a program: 128 bytes of a half type
_TILE = 2048  # numbers in a tile of the forward
_WALKED = 512  # numbers of a tile of the backward: 4 a thread, or registers run out
_PROGRAMS = 2048  # most programs of the backward, unless sequences are short: each leaves sums
_UNROLLED = tl.constexpr(4)  # tokens that are computed in a step of the backward's loop
_AHEAD = tl.constexpr(4)  # tokens whose loads are under way while one is computed


@triton.jit(do_not_specialize=["N", "L"])
def _forward_kernel(
    u, weight, bias, y, ub, ut, N, L, D,
    K: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(D, COLUMNS)
    column = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    token = (tl.program_id(0) // blocks) * TOKENS + tl.arange(0, TOKENS)  # of all sequences
    wide, t = column < D, token % L
    source = u + ((token // L).to(tl.int64) * ub + t.to(tl.int64) * ut)[:, None] + column[None, :]
    total = tl.zeros((TOKENS, COLUMNS), tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=wide, other=0.0).to(tl.float32)[None, :]
    for k in tl.static_range(K):
        tap = tl.load(weight + column * K + k, mask=wide, other=0.0).to(tl.float32)
        mask = ((token < N) & (t >= k))[:, None] & wide[None, :]
        total += tap[None, :] * tl.load(source - k * ut, mask=mask, other=0.0).to(tl.float32)
    if SILU:
        total = total / (1 + tl.exp(-total))
    place = y + token.to(tl.int64)[:, None] * D + column[None, :]
    tl.store(place, total.to(y.dtype.element_ty), mask=(token < N)[:, None] & wide[None, :])


@triton.jit
def _at(start, step, t, end, wide):
    """Load token t of every run, zero outside [0, end)."""
    mask = ((t >= 0) & (t < end))[:, None] & wide[None, :]
    return tl.load(start + (t.to(tl.int64) * step)[:, None], mask=mask, other=0.0)


@triton.jit(do_not_specialize=["run", "runs", "per_sequence", "L"])
def _backward_kernel(
    u, weight, bias, dy, du, part, ub, ut, db, dt, run, runs, per_sequence, L, D,
    K: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    RUNS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    SUMS: tl.constexpr = K + HAS_BIAS
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    wide = column < D
    shift = tl.zeros((COLUMNS,), tl.float32)
    if HAS_BIAS:
        shift = tl.load(bias + column, mask=wide, other=0.0).to(tl.float32)
    taps = ()
    for k in tl.static_range(K):
        tap = tl.load(weight + column * K + k, mask=wide, other=0.0).to(tl.float32)
        taps = taps + (tap[None, :],)
    sums = ()
    for _ in tl.static_range(SUMS):
        sums = sums + (tl.zeros((RUNS, COLUMNS), tl.float32),)
    index = tl.program_id(1) * RUNS + tl.arange(0, RUNS)
    first = (index % per_sequence) * run
    b, end = (index // per_sequence).to(tl.int64), tl.where(index < runs, L, 0)
    stop = tl.minimum(first + run, end)  # of the tokens whose gradients are this run's
    u_start = u + (b * ub)[:, None] + column[None, :]
    dy_start = dy + (b * db)[:, None] + column[None, :]
    du_start = du + (b * L * D)[:, None] + column[None, :]
    recent, grads = (), ()  # u and g of the last K - 1 tokens, the oldest first
    for k in tl.static_range(K - 1):
        recent = recent + (_at(u_start, ut, first + k - K + 1, end, wide).to(tl.float32),)
        grads = grads + (tl.zeros((RUNS, COLUMNS), tl.float32),)
    next_u, next_dy = (), ()
    for k in tl.static_range(_AHEAD):
        next_u = next_u + (_at(u_start, ut, first + k, end, wide),)
        next_dy = next_dy + (_at(dy_start, dt, first + k, end, wide),)
    for i in range(0, run + K - 1, _UNROLLED):
        for j in tl.static_range(_UNROLLED):
            t = first + i + j
            recent = recent + (next_u[0].to(tl.float32),)
            g = next_dy[0].to(tl.float32)
            next_u = next_u[1:] + (_at(u_start, ut, t + _AHEAD, end, wide),)
            next_dy = next_dy[1:] + (_at(dy_start, dt, t + _AHEAD, end, wide),)
            if SILU:
                p = shift[None, :] + taps[0] * recent[K - 1]
                for k in tl.static_range(1, K):
                    p += taps[k] * recent[K - 1 - k]
                s = 1 / (1 + tl.exp(-p))
                g *= s * (1 + p * (1 - s))
            grads = grads + (g,)
            g = tl.where((t < stop)[:, None], g, 0.0)  # later tokens are the next run's
            more = ()
            for k in tl.static_range(K):
                more = more + (sums[k] + g * recent[K - 1 - k],)
            if HAS_BIAS:
                more = more + (sums[K] + g,)
            sums = more
            out = taps[0] * grads[0]
            for k in tl.static_range(1, K):
                out += taps[k] * grads[k]
            t -= K - 1  # the token whose last g has come
            place = du_start + (t.to(tl.int64) * D)[:, None]
            mask = ((t >= first) & (t < stop))[:, None] & wide[None, :]
            tl.store(place, out.to(du.dtype.element_ty), mask=mask)
            recent, grads = recent[1:], grads[1:]
    place = part + tl.program_id(1).to(tl.int64) * SUMS * D + column
    for k in tl.static_range(SUMS):
        tl.store(place + k * D, tl.sum(sums[k], 0), mask=wide)


def _rows(x: Tensor) -> Tensor:
    """Return x (B, L, D) with its columns side by side, copied only if necessary."""
    return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()


def _run(tokens: int, L: int, K: int, most: int) -> int:
    """Return the tokens of a run, such that `tokens` make about `most` runs or fewer.

    With the K - 1 tokens beyond a run they fill the steps of the loop.
    """
    unrolled: int = _UNROLLED.value
    walked = max(16 if K <= 4 else 24, triton.cdiv(tokens, most) + K - 1)
    steps: int = triton.cdiv(min(walked, L + K - 1), unrolled)
    return steps * unrolled - K + 1


def forward(
    u: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, dtype: torch.dtype
) -> Tensor:
    """Return y (B, L, D), contiguous, of `mechbench.ops.short_conv_tokens`, in `dtype`."""
    u, weight = _rows(u), weight.contiguous()
    B, L, D = u.shape
    columns = min(_COLUMNS, triton.next_power_of_2(D))
    tokens = min(_TILE // columns, triton.next_power_of_2(B * L))
    y = torch.empty(B, L, D, dtype=dtype, device=u.device)
    # One axis, for the others end at 65,535.
    _forward_kernel[(triton.cdiv(D, columns) * triton.cdiv(B * L, tokens),)](
        u, weight, weight if bias is None else bias.contiguous(), y, u.stride(0), u.stride(1),
        B * L, L, D, K=weight.shape[1], HAS_BIAS=bias is not None, SILU=silu,
        TOKENS=tokens, COLUMNS=columns,
    )  # fmt: skip
    return y


def backward(
    u: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of u, contiguous and in its dtype, of weight and bias, in float32.

    Without a bias, the last is of no meaning.
    """
    u, dy, weight = _rows(u), _rows(dy), weight.contiguous()
    (B, L, D), K = u.shape, weight.shape[1]
    columns = min(_COLUMNS, triton.next_power_of_2(D))
    side_by_side = _WALKED // columns
    blocks = triton.cdiv(D, columns)
    run = _run(B * L, L, K, side_by_side * max(1, _PROGRAMS // blocks))
    per_sequence = triton.cdiv(L, run)
    runs = B * per_sequence
    programs = triton.cdiv(runs, side_by_side)
    has_bias = bias is not None
    du = torch.empty(B, L, D, dtype=u.dtype, device=u.device)
    part = torch.empty(programs, K + has_bias, D, dtype=torch.float32, device=u.device)
    _backward_kernel[(blocks, programs)](
        u, weight, weight if bias is None else bias.contiguous(), dy, du, part,
        u.stride(0), u.stride(1), dy.stride(0), dy.stride(1), run, runs, per_sequence, L, D,
        K=K, HAS_BIAS=has_bias, SILU=silu, RUNS=side_by_side, COLUMNS=columns,
    )  # fmt: skip
    sums = summed(part)
    return du, sums[:K].T.contiguous(), sums[-1]
