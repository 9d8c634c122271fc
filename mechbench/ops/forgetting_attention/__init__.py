"""Softmax attention whose logits fall with every gate between key and query, query by query chunk.

    y_t = sum_{s <= t} softmax_s(q_t . k_s / sqrt(d) + g_{s+1} + .. + g_t) v_s

Source: Lin et al. 2025 (arXiv:2503.02130), with g the log of their forget gates. The L x L weights
are never held at once: the backward pass computes those of each chunk again from the logarithms of
their sums (Dao et al. 2022, arXiv:2205.14135, section 3.1). O(L^2 d) time, O(L (chunk + d)) memory.
On a GPU fused Triton kernels compute it where the types and widths allow, and leave out blocks of
keys whose weights gates have made 0.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.marks import COMPUTED_AGAIN
from mechbench.ops.precision import product_precision
from mechbench.ops.triton import beside, state_fits, unavailable
from mechbench.ops.used import noted


def forgetting_attention(
    q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor, chunk: int = 128
) -> Tensor:
    """Compute y of the module docstring.

    Args:
        q: (B, H, L, d).
        k: (B, H, L, d).
        v: (B, H, L, P).
        log_forget: g, (B, H, L), at most 0; g_0 has no effect.
        chunk: queries whose weights are held at once; affects only speed and memory. The kernels
            choose their own.

    Returns:
        (B, H, L, P) in the dtype of `v`; logits and sums are float32 or wider. The kernels round
        the factors of a product to the dtype of `v`, or from float32 under autocast to TF32.
    """
    if _fused(q, k, v, log_forget):
        out: Tensor = _Fused.apply(q, k, v, log_forget)  # type: ignore[no-untyped-call]
        return out
    with torch.autocast("cuda" if v.is_cuda else "cpu", enabled=False):
        wide = torch.promote_types(v.dtype, torch.float32)
        total = log_forget.double().cumsum(-1)  # a sum over a long sequence, and its differences
        q = q.to(wide) / q.shape[-1] ** 0.5
        args = q, k.to(wide), v.to(wide), total, chunk
        y: Tensor = _Forgetting.apply(*args)  # type: ignore[no-untyped-call]
        return y.to(v.dtype)


def forgetting_heads(qkv: Tensor, gate: Tensor, chunk: int = 128) -> Tensor:
    """Compute `forgetting_attention` of a projection into heads, with f = sigmoid(gate).

    Args:
        qkv: (B, L, 3, H, d): queries, keys and values of every head.
        gate: (B, L, H): logits of the forget gates.
        chunk: as in `forgetting_attention`.

    Returns:
        (B, H, L, d) in the dtype of `qkv`; the log of the gates is float32 or wider.
    """
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, d) each
    if _fused(q, k, v, gate):
        out: Tensor = _FusedHeads.apply(qkv, gate)  # type: ignore[no-untyped-call]
        return out
    return forgetting_attention(q, k, v, log_gates(gate), chunk)


def log_gates(gate: Tensor) -> Tensor:
    """Return the log of sigmoid(gate), (B, L, H) to (B, H, L), in float32 or wider."""
    wide = torch.promote_types(gate.dtype, torch.float32)
    return F.logsigmoid(gate.to(wide)).transpose(1, 2)


def forgetting_weights(q: Tensor, k: Tensor, log_forget: Tensor) -> Tensor:
    """Return the weights of `forgetting_attention`, (B, H, L, L), for a small L."""
    total = log_forget.to(q.dtype).cumsum(-1)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores + (total[..., :, None] - total[..., None, :])
    weights: Tensor = scores.masked_fill(_future(q.shape[-2], q), float("-inf")).softmax(-1)
    return weights


def _fused(q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> bool:
    """Return whether the kernels take these."""
    fits = (
        unavailable(q, k, v, gate) is None
        and q.dtype == k.dtype == v.dtype
        and (v.is_cuda or v.dtype != torch.bfloat16)  # Triton's interpreter cannot multiply these
        and state_fits(v, q.shape[-1], v.shape[-1])
    )
    return noted("forgetting_attention", v, fits)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_forget: Tensor) -> Tensor:
        from mechbench.ops.forgetting_attention.kernels import forward

        q, k, v = beside(q), beside(k), beside(v)
        ctx.precision = product_precision(v)
        y, kept = forward(q, k, v, log_forget, False, ctx.precision)
        ctx.save_for_backward(q, k, v, log_forget, y, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        from mechbench.ops.forgetting_attention.kernels import Kept, backward

        q, k, v, log_forget, y, *kept = ctx.saved_tensors
        # (B, H, L, ..) with the heads of a token together
        given = q, k, v, log_forget
        out = [x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in given]
        backward(*given, y, Kept(*kept), beside(dy), out, False, ctx.precision)
        return tuple(out)


class _FusedHeads(torch.autograd.Function):
    """Takes the projection whole, so that its gradient is written whole."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, gate: Tensor) -> Tensor:
        from mechbench.ops.forgetting_attention.kernels import forward

        qkv = beside(qkv)
        ctx.precision = product_precision(qkv)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y, kept = forward(q, k, v, gate.transpose(1, 2), True, ctx.precision)
        ctx.save_for_backward(qkv, gate, y, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        from mechbench.ops.forgetting_attention.kernels import Kept, backward

        qkv, gate, y, *kept = ctx.saved_tensors
        d_qkv, d_gate = qkv.new_empty(qkv.shape), gate.new_empty(gate.shape)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = *d_qkv.permute(2, 0, 3, 1, 4), d_gate.transpose(1, 2)
        saved = y, Kept(*kept), beside(dy)
        backward(q, k, v, gate.transpose(1, 2), *saved, out, True, ctx.precision)
        return d_qkv, d_gate


class _Forgetting(torch.autograd.Function):
    """Takes queries that are scaled, and the sums of g from the start, in float64."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, total: Tensor, chunk: int) -> Tensor:
        y, log_sums = torch.empty_like(v), torch.empty_like(q[..., 0])  # (B, H, L, P), (B, H, L)
        for a, b in _chunks(q.shape[-2], chunk):
            scores = _scores(q, k, total, a, b)
            log_sums[..., a:b] = scores.logsumexp(-1)
            y[..., a:b, :] = (scores - log_sums[..., a:b, None]).exp_() @ v[..., :b, :]
        ctx.save_for_backward(q, k, v, total, y, log_sums)
        ctx.chunk = chunk
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, total, y, log_sums = ctx.saved_tensors
        dq, dk, dv, dtotal = (torch.zeros_like(x) for x in (q, k, v, total))
        mean = (dy * y).sum(-1, keepdim=True)  # (B, H, L, 1): of each query's dweights
        with torch.autocast("cuda" if v.is_cuda else "cpu", enabled=False):
            for a, b in _chunks(q.shape[-2], ctx.chunk):
                with COMPUTED_AGAIN:
                    scores = _scores(q, k, total, a, b)
                weights = scores.sub_(log_sums[..., a:b, None]).exp_()
                dv[..., :b, :] += weights.transpose(-1, -2) @ dy[..., a:b, :]
                dweights = dy[..., a:b, :] @ v[..., :b, :].transpose(-1, -2)
                dscores = dweights.sub_(mean[..., a:b, :]).mul_(weights)  # (B, H, C, b)
                dq[..., a:b, :] = dscores @ k[..., :b, :]
                dk[..., :b, :] += dscores.transpose(-1, -2) @ q[..., a:b, :]
                dtotal[..., :b] -= dscores.sum(-2)  # what a query's own sum does cancels
        return dq, dk, dv, dtotal, None


def _scores(q: Tensor, k: Tensor, total: Tensor, a: int, b: int) -> Tensor:
    """Return the logits of queries a to b, (B, H, b - a, b), each up to a number of its own.

    Sums are taken from the chunk's end: the nearer a key, the more exact is what it has lost.
    """
    lost = (total[..., :b] - total[..., b - 1 : b]).to(q.dtype)  # (B, H, b)
    scores = q[..., a:b, :] @ k[..., :b, :].transpose(-1, -2) - lost[..., None, :]
    scores[..., a:].masked_fill_(_future(b - a, q), float("-inf"))
    return scores


def _chunks(L: int, chunk: int) -> list[tuple[int, int]]:
    return [(a, min(a + chunk, L)) for a in range(0, L, chunk)]


def _future(L: int, like: Tensor) -> Tensor:
    return torch.ones(L, L, dtype=torch.bool, device=like.device).triu(1)
