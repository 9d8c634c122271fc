"""Kernels of `mechbench.ops.short_conv`: tokens first, one pass over memory in each direction.

With p_t = sum_k w_k u_{t-k} + b before the activation and g_t = dy_t act'(p_t),

    du_t = sum_k w_k g_{t+k},   dw_k = sum_t g_t u_{t-k},   db = sum_t g_t

In the backward every thread walks along a run of tokens and keeps the last K values of u and of g
in registers, so that each is loaded or computed once; a run begins K - 1 tokens early for u and
ends K - 1 late for g. The runs of a tile lie side by side, whichever sequences they belong to.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 64  # channels of a program: 128 bytes of a half type
_TILE = 2048  # numbers in a tile of the forward
_RUN = 16  # tokens of a run
_AHEAD = tl.constexpr(3)  # tokens whose loads are under way while one is computed
_PROGRAMS = 2048  # about as many programs of the backward: each leaves a row of partial sums


@triton.jit
def _forward_kernel(
    u, weight, bias, y, ub, ut, N, L, D,
    K: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)  # of all sequences
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
def _at(start, step, offset, t, end, wide):
    """Load tokens t + offset of every run, zero outside [0, end)."""
    inside = (t + offset >= 0) & (t + offset < end)
    return tl.load(start + offset * step, mask=inside[:, None] & wide[None, :], other=0.0)


@triton.jit
def _backward_kernel(
    u, weight, bias, dy, du, part, ub, ut, db, dt, runs, per_sequence, L, D,
    K: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    RUN: tl.constexpr, RUNS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    STEPS: tl.constexpr = RUN + K - 1
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
    for tile in range(tl.program_id(1), tl.cdiv(runs, RUNS), tl.num_programs(1)):
        run = tl.cast(tile, tl.int32) * RUNS + tl.arange(0, RUNS)
        b, t = (run // per_sequence).to(tl.int64), (run % per_sequence) * RUN
        end = tl.where(run < runs, L, 0)
        wide_t = t.to(tl.int64)
        u_start = u + (b * ub + wide_t * ut)[:, None] + column[None, :]
        dy_start = dy + (b * db + wide_t * dt)[:, None] + column[None, :]
        du_start = du + (b * L + wide_t)[:, None] * D + column[None, :]
        recent, grads = (), ()  # u of the last K - 1 tokens, g of the last K; the oldest first
        for i in tl.static_range(K - 1):
            recent = recent + (_at(u_start, ut, i - K + 1, t, end, wide).to(tl.float32),)
            grads = grads + (tl.zeros((RUNS, COLUMNS), tl.float32),)
        next_u, next_dy = (), ()
        for i in tl.static_range(_AHEAD):
            next_u = next_u + (_at(u_start, ut, i, t, end, wide),)
            next_dy = next_dy + (_at(dy_start, dt, i, t, end, wide),)
        for i in tl.static_range(STEPS):
            if i + _AHEAD < STEPS:
                next_u = next_u + (_at(u_start, ut, i + _AHEAD, t, end, wide),)
                next_dy = next_dy + (_at(dy_start, dt, i + _AHEAD, t, end, wide),)
            recent = recent + (next_u[0].to(tl.float32),)
            g = next_dy[0].to(tl.float32)
            next_u, next_dy = next_u[1:], next_dy[1:]
            if SILU:
                p = shift[None, :] + taps[0] * recent[K - 1]
                for k in tl.static_range(1, K):
                    p += taps[k] * recent[K - 1 - k]
                s = 1 / (1 + tl.exp(-p))
                g *= s * (1 + p * (1 - s))
            grads = grads + (g,)
            if i < RUN:  # later tokens are the next run's
                more = ()
                for k in tl.static_range(K):
                    more = more + (sums[k] + g * recent[K - 1 - k],)
                if HAS_BIAS:
                    more = more + (sums[K] + g,)
                sums = more
            if i >= K - 1:
                out = taps[0] * grads[0]
                for k in tl.static_range(1, K):
                    out += taps[k] * grads[k]
                here = t + (i - K + 1)
                mask = (here < end)[:, None] & wide[None, :]
                tl.store(du_start + (i - K + 1) * D, out.to(du.dtype.element_ty), mask=mask)
            recent, grads = recent[1:], grads[1:]
    place = part + tl.program_id(1).to(tl.int64) * SUMS * D + column
    for k in tl.static_range(SUMS):
        tl.store(place + k * D, tl.sum(sums[k], 0), mask=wide)


def _rows(x: Tensor) -> Tensor:
    """Return x (B, L, D) with its columns side by side, copied only if necessary."""
    return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()


def forward(
    u: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, dtype: torch.dtype
) -> Tensor:
    """Return y (B, L, D), contiguous, of `mechbench.ops.short_conv_tokens`, in `dtype`."""
    u, weight = _rows(u), weight.contiguous()
    B, L, D = u.shape
    columns = min(_COLUMNS, triton.next_power_of_2(D))
    tokens = min(_TILE // columns, triton.next_power_of_2(B * L))
    y = torch.empty(B, L, D, dtype=dtype, device=u.device)
    _forward_kernel[(triton.cdiv(D, columns), triton.cdiv(B * L, tokens))](
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
    blocks = triton.cdiv(D, columns)
    per_sequence = triton.cdiv(L, _RUN)
    runs = B * per_sequence
    # Half as many numbers a thread where more taps need more registers.
    side_by_side = min((1024 if K <= 4 else 512) // columns, triton.next_power_of_2(runs))
    programs = min(triton.cdiv(runs, side_by_side), triton.cdiv(_PROGRAMS, blocks))
    has_bias = bias is not None
    du = torch.empty(B, L, D, dtype=u.dtype, device=u.device)
    part = torch.empty(programs, K + has_bias, D, dtype=torch.float32, device=u.device)
    _backward_kernel[(blocks, programs)](
        u, weight, weight if bias is None else bias.contiguous(), dy, du, part,
        u.stride(0), u.stride(1), dy.stride(0), dy.stride(1), runs, per_sequence, L, D,
        K=K, HAS_BIAS=has_bias, SILU=silu, RUN=_RUN, RUNS=side_by_side, COLUMNS=columns,
    )  # fmt: skip
    sums = part.sum(0)
    return du, sums[:K].T.contiguous(), sums[-1]
