"""Linear maps into and out of the channels-first layout (B, D, L), without a transposed copy."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.linear import bias_gradient
from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import VECTOR, whole_vectors


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


_FEW = 8  # up to this batch size, multiply one by one: cuBLAS then splits long sums over the GPU


def _empty(batch: int, channels: int, L: int, like: Tensor) -> Tensor:
    """Return an empty (B, C, L) with aligned rows.

    Channels come first in memory, so that one matrix product makes all of it, unless that would
    leave the rows of most sequences unaligned: those of 131,074 tokens are.
    """
    if batch == 1 or L % VECTOR == 0:
        width = whole_vectors(batch * L)
        rows = like.new_empty(channels, width)[:, : batch * L]
        return rows.view(channels, batch, L).transpose(0, 1)
    return like.new_empty(batch, channels, whole_vectors(L))[..., :L]


def _matrix(x: Tensor) -> Tensor | None:
    """Return x (B, C, L) as a matrix (C, B L) if it lies in memory as one, without a copy."""
    B, _, L = x.shape
    return x.transpose(0, 1).flatten(1) if B == 1 or x.stride()[::2] == (L, 1) else None


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
        matrix = _matrix(p)
        if matrix is not None:
            torch.mm(weight, u.flatten(0, 1).T, out=matrix)
            return p
        return torch.bmm(weight.expand(len(u), -1, -1), u.transpose(1, 2), out=p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dp: Tensor) -> tuple[Tensor, Tensor]:
        u, weight = ctx.saved_tensors
        matrix = _matrix(dp)
        if matrix is not None:
            return (matrix.T @ weight).view(u.shape), matrix @ u.flatten(0, 1)
        du = torch.bmm(dp.transpose(1, 2), weight.expand(len(u), -1, -1))  # (B, L, D)
        return du, _summed_products(dp, u)


class _From(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(y, weight)
        matrix = _matrix(y)
        if matrix is not None:  # only a product of matrices adds the bias as it goes
            return torch.addmm(bias, matrix.T, weight.T).view(len(y), y.shape[2], len(weight))
        out = torch.bmm(y.transpose(1, 2), weight.T.expand(len(y), -1, -1))  # (B, L, E)
        return out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, weight = ctx.saved_tensors
        dy = _empty(len(y), y.shape[1], y.shape[2], y)  # (B, D, L)
        dbias = bias_gradient(dout)
        matrix, gradient = _matrix(y), _matrix(dy)
        if matrix is not None and gradient is not None:
            rows = dout.flatten(0, 1)  # (B L, E)
            torch.mm(weight.T, rows.T, out=gradient)
            return dy, rows.T @ matrix.T, dbias
        torch.bmm(weight.T.expand(len(y), -1, -1), dout.transpose(1, 2), out=dy)
        dweight = _summed_products(y, dout).T  # (E, D)
        return dy, dweight, dbias
