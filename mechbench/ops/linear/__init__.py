"""A linear map whose backward is our own: few kernels, and none that only casts.

PyTorch's reduction over the rows of a tall, narrow matrix reaches a quarter of the bandwidth, and
under autocast it rounds the gradients of weight and bias to the half type and casts them back.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import unavailable

_WIDENS = hasattr(torch.ops.aten.mm, "dtype")  # products of another type than their factors: 2.8


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Return layer(x), in autocast's dtype where it is on.

    Args:
        x: (..., D).
        layer: with weight (E, D) and bias (E,) or None.
    """
    return affine(x, layer.weight, layer.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b for x (..., D), weight (E, D), bias (E,) or None, as `linear` does."""
    if not x.is_cuda or unavailable(x) is not None:
        return F.linear(x, weight, bias)
    y: Tensor = _Linear.apply(x, weight, bias, autocast_dtype(x))  # type: ignore[no-untyped-call]
    return y


def bias_gradient(dy: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the sum of dy (..., E) over all but the last axis.

    Args:
        dy: (..., E).
        dtype: of the sum, by default dy's.
    """
    rows = dy.flatten(0, -2)
    if unavailable(dy) is not None:
        return rows.sum(0, dtype=dtype)
    from mechbench.ops.linear.kernels import column_sum

    return column_sum(rows).to(dtype or dy.dtype)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a (M, K) @ b (K, N), float32 from half types without rounding on the way if it can."""
    wider = a.is_cuda and dtype == torch.float32 and a.dtype.itemsize == 2
    if wider and _WIDENS:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.dtypes
        rows = dy.contiguous().flatten(0, -2)  # (N, E)
        dx = _product(rows, weight, of_x).view(x.shape) if ctx.needs_input_grad[0] else None
        dweight = _product(rows.T, x.flatten(0, -2), of_weight)
        dbias = None if of_bias is None else bias_gradient(rows, of_bias)
        return dx, dweight, dbias, None
