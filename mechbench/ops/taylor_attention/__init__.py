"""Causal attention whose weights are the exponential up to its second-order term.

    y_t = sum_{s <= t} w_ts v_s / sum_{s <= t} w_ts,   w = 1 + z + z^2 / 2,   z = q . k / sqrt(d)

Source: Arora et al. 2024 (arXiv:2402.18668), Taylor linear attention.
On a GPU fused Triton kernels compute it where the types and widths allow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.decay_attention import decay_attention
from mechbench.ops.precision import product_precision
from mechbench.ops.triton import beside, unavailable
from mechbench.ops.used import noted

_WIDEST_FEATURE, _WIDEST_VALUE = 32, 128  # of the kernels, which keep their tiles in registers


def taylor_attention(q: Tensor, k: Tensor, v: Tensor, chunk: int = 64) -> Tensor:
    """Compute y of the module docstring, in O(L) time and memory.

    Args:
        q: (B, H, L, d).
        k: (B, H, L, d).
        v: (B, H, L, P).
        chunk: positions computed as one matrix. The kernels choose their own.

    Returns:
        (B, H, L, P) in the dtype of `v`; weights and sums are float32 or wider. Under autocast the
        kernels round the factors of a product to TF32 (10 bits, where bfloat16 has 7).
    """
    wide = max(q.shape[-1] / _WIDEST_FEATURE, v.shape[-1] / _WIDEST_VALUE) > 1
    if noted("taylor_attention", v, unavailable(q, k, v) is None and not wide):
        out: Tensor = _Fused.apply(q, k, v)  # type: ignore[no-untyped-call]
        return out
    kind = torch.promote_types(v.dtype, torch.float32)
    q, k = q.to(kind), k.to(kind)
    summed = torch.cat([v.to(kind), torch.ones_like(q[..., :1])], -1)  # (B, H, L, P + 1)
    y = decay_attention(taylor_features(q), taylor_features(k), summed, chunk=chunk)
    return (y[..., :-1] / y[..., -1:]).to(v.dtype)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from mechbench.ops.taylor_attention.kernels import forward

        ctx.precision = product_precision(v)
        q, k, v = beside(q), beside(k), beside(v)
        y, inverse, states = forward(q, k, v, ctx.precision)
        ctx.save_for_backward(q, k, v, y, inverse, states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        from mechbench.ops.taylor_attention.kernels import backward

        q, k, v, y, inverse, states = ctx.saved_tensors
        return backward(q, k, v, y, inverse, states, beside(dy), ctx.precision)


def taylor_attention_reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute `taylor_attention` from its L x L weights: for tests."""
    z = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weights = (1 + z + z.square() / 2).tril()
    y: Tensor = weights / weights.sum(-1, keepdim=True) @ v
    return y


def taylor_features(x: Tensor) -> Tensor:
    """Return phi(x): phi(x) . phi(y) = 1 + z + z^2 / 2 with z = x . y / sqrt(d).

    Turning x by 0 to d / 2 places and multiplying meets every pair once, but for the squares,
    which count half, and the pairs half a turn apart, which are met twice.

    Args:
        x: (..., d).

    Returns:
        (..., 1 + d + d (floor(d / 2) + 1)).
    """
    d = x.shape[-1]
    x = x / d**0.25
    turns = range(d // 2 + 1)
    weights = [1.0 if 0 < turn < d / 2 else 0.5**0.5 for turn in turns]
    pairs = [w * x * x.roll(turn, -1) for turn, w in zip(turns, weights, strict=True)]
    return torch.cat([torch.ones_like(x[..., :1]), x, *pairs], -1)
