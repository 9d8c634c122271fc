"""A linear map whose bias gradient is summed by our own kernel.

PyTorch's reduction over the rows of a tall, narrow matrix reaches a quarter of the bandwidth.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import unavailable


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Return layer(x), in autocast's dtype where it is on.

    Args:
        x: (..., D).
        layer: with weight (E, D) and bias (E,).
    """
    if not x.is_cuda or unavailable(x) is not None:
        return F.linear(x, layer.weight, layer.bias)
    dtype = autocast_dtype(x)
    args = (t.to(dtype) for t in (x, layer.weight, layer.bias))
    y: Tensor = _Linear.apply(*args)  # type: ignore[no-untyped-call]
    return y


def bias_gradient(dy: Tensor) -> Tensor:
    """Return the sum of dy (..., E) over all but the last axis, in its dtype."""
    if unavailable(dy) is not None:
        return dy.flatten(0, -2).sum(0)
    from mechbench.ops.linear.kernels import column_sum

    return column_sum(dy.flatten(0, -2)).to(dy.dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous()
        rows = dy.flatten(0, -2)  # (N, E)
        return dy @ weight, rows.T @ x.flatten(0, -2), bias_gradient(dy)
