"""Rotary position embedding. Source: Su et al. 2021 (RoFormer, arXiv:2104.09864), section 3.2.

The paper turns neighbours, features 2 i and 2 i + 1. Here feature i is turned with i + d/2, as in
much code: the same up to an order of the features, which the projections before it learn.

On a GPU a fused Triton kernel turns the vectors in one pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable
from mechbench.ops.used import noted


def rotary(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotate pairs of features by angles that grow with the position.

    Args:
        x: (..., L, d) with d even; feature i pairs with feature i + d/2.
        base: wavelength ratio; the slowest pair turns once in about 2 pi base positions.

    Returns:
        The rotated tensor, in the dtype of `x`; angles are computed in float32 or wider.
    """
    if noted("rotary", x, x.ndim == 4 and unavailable(x) is None):
        out: Tensor = _Rotary.apply(x, rates(x, base))  # type: ignore[no-untyped-call]
        return out
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * rates(x, base)  # (L, d/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def rotary_heads(qkv: Tensor, base: float = 10_000.0) -> tuple[Tensor, Tensor, Tensor]:
    """Split a projection into heads and rotate its queries and keys.

    Args:
        qkv: (B, L, 3, H, d): queries, keys and values of every head.
        base: as in `rotary`.

    Returns:
        q, k, v, each (B, H, L, d).
    """
    if noted("rotary", qkv, unavailable(qkv) is None):
        q, k, v = _Heads.apply(qkv, rates(qkv, base))  # type: ignore[no-untyped-call]
        return q, k, v
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return rotary(q, base), rotary(k, base), v


def rates(x: Tensor, base: float) -> Tensor:
    """Return the angles by which the pairs of x (.., d) turn with each position, (d/2,)."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    d = x.shape[-1]
    out: Tensor = base ** (-torch.arange(0, d, 2, device=x.device, dtype=wide) / d)
    return out


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: Tensor) -> Tensor:
        from mechbench.ops.rotary.kernels import turn

        ctx.save_for_backward(rate)
        return turn(x, rate, _laid_out(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        from mechbench.ops.rotary.kernels import turn

        (rate,) = ctx.saved_tensors
        return turn(dy, -rate, _laid_out(dy)), None


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
        from mechbench.ops.rotary.kernels import turn

        ctx.save_for_backward(rate)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return turn(q, rate, _laid_out(q)), turn(k, rate, _laid_out(k)), _laid_out(v).copy_(v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor, None]:
        from mechbench.ops.rotary.kernels import turn

        (rate,) = ctx.saved_tensors
        B, H, L, d = dq.shape
        out = torch.empty(B, L, 3, H, d, device=dq.device, dtype=dq.dtype)
        q, k, v = out.permute(2, 0, 3, 1, 4)
        turn(dq, -rate, q)
        turn(dk, -rate, k)
        v.copy_(dv)
        return out, None


def _laid_out(x: Tensor) -> Tensor:
    """Return an empty tensor like x (B, H, L, d) in which the heads of a token lie together."""
    B, H, L, d = x.shape
    return torch.empty(B, L, H, d, device=x.device, dtype=x.dtype).transpose(1, 2)
