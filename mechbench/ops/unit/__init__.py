"""Vectors scaled to norm 1: the keys and queries of delta rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable

_WIDEST = 1024  # channels that one program holds
_EPS = 1e-6


def unit(x: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale x / sqrt(|x|^2 + 1e-6), float32 or wider, |x| being the norm of a head.

    Args:
        x: (B, H, L, d) or, with n vectors a token, (B, H, L, n, d).
        scale: the norm of what is returned.
    """
    if unavailable(x) is None and x.shape[-1] <= _WIDEST:
        y: Tensor
        if x.ndim == 5:  # the kernels see n heads in place of each
            y = _Unit.apply(x.transpose(2, 3).flatten(1, 2), scale)  # type: ignore[no-untyped-call]
            return torch.unflatten(y, 1, (x.shape[1], -1)).transpose(2, 3)
        y = _Unit.apply(x, scale)  # type: ignore[no-untyped-call]
        return y
    x = x.contiguous() if x.ndim == 5 else x
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    x = x * (x.square().sum(-1, True) + _EPS).rsqrt()
    return x if scale == 1 else scale * x


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        from mechbench.ops.unit.kernels import forward

        ctx.save_for_backward(x)
        ctx.scale = scale
        return forward(x, scale, _EPS)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        from mechbench.ops.unit.kernels import backward

        (x,) = ctx.saved_tensors
        return backward(x, dy, ctx.scale, _EPS), None
