"""Linear maps into and out of the channels-first layout (B, D, L), without a transposed copy."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.linear import bias_gradient
from mechbench.ops.precision import autocast_dtype


def to_channels(u: Tensor, weight: Tensor) -> Tensor:
    """Return W u_t for every t, channels first.

    Args:
        u: (B, L, D).
        weight: (E, D).

    Returns:
        (B, E, L), in autocast's dtype where it is on.
    """
    if not u.is_cuda:  # on a CPU, one large product is faster than a batch of them
        return F.linear(u, weight).transpose(1, 2)
    dtype = autocast_dtype(u)
    out: Tensor = _To.apply(u.to(dtype), weight.to(dtype))  # type: ignore[no-untyped-call]
    return out


def from_channels(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return W y_t + b for every t, channels last.

    Args:
        y: (B, D, L).
        weight: (E, D).
        bias: (E,).

    Returns:
        (B, L, E), in autocast's dtype where it is on.
    """
    if not y.is_cuda:
        return F.linear(y.transpose(1, 2), weight, bias)
    dtype = autocast_dtype(y)
    args = (t.to(dtype) for t in (y, weight, bias))
    out: Tensor = _From.apply(*args)  # type: ignore[no-untyped-call]
    return out


_ALIGNED = 8  # half-precision numbers in the 16 bytes that fast matrix kernels load at once
_FEW = 8  # up to this batch size, multiply one by one: cuBLAS then splits long sums over the GPU


def _empty(batch: int, channels: int, L: int, like: Tensor) -> Tensor:
    """Return an empty (B, C, L) with aligned rows; contiguous rows of 131,074 tokens are not."""
    return like.new_empty(batch, channels, -(-L // _ALIGNED) * _ALIGNED)[..., :L]


def _summed_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum over the batch of a (B, M, L) @ b (B, L, N): (M, N)."""
    if len(a) > _FEW:
        return torch.bmm(a, b).sum(0)
    return torch.stack([x @ y for x, y in zip(a, b, strict=True)]).sum(0)


class _To(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(u, weight)
        p = _empty(len(u), len(weight), u.shape[1], u)  # (B, E, L)
        return torch.bmm(weight.expand(len(u), -1, -1), u.transpose(1, 2), out=p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dp: Tensor) -> tuple[Tensor, Tensor]:
        u, weight = ctx.saved_tensors
        du = torch.bmm(dp.transpose(1, 2), weight.expand(len(u), -1, -1))  # (B, L, D)
        return du, _summed_products(dp, u)


class _From(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(y, weight)
        out = torch.bmm(y.transpose(1, 2), weight.T.expand(len(y), -1, -1))  # (B, L, E)
        return out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, weight = ctx.saved_tensors
        dy = _empty(len(y), y.shape[1], y.shape[2], y)  # (B, D, L)
        torch.bmm(weight.T.expand(len(y), -1, -1), dout.transpose(1, 2), out=dy)
        dweight = _summed_products(y, dout).T  # (E, D)
        return dy, dweight, bias_gradient(dout)
