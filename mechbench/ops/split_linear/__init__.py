"""A linear map whose results go separate ways, with rows that lie well in memory.

Rows of, say, 514 numbers begin at odd places, where matrix products and the kernels that read a
slice of them are slow. On a GPU rows of zeros make the weight's number of rows a multiple of 16;
the gradients of the slices meet in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.linear import _product, linear
from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import VECTOR, unavailable


def split_linear(x: Tensor, layer: nn.Linear, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the slices of layer(x), of these widths, in autocast's dtype where it is on.

    Args:
        x: (B, L, D).
        layer: with weight (E, D), without bias.
        widths: of the slices, E in all.

    Returns:
        (B, L, width) each.
    """
    if not x.is_cuda or unavailable(x) is not None:
        return tuple(torch.split(linear(x, layer), list(widths), -1))
    args = x, layer.weight, tuple(widths), autocast_dtype(x)
    slices: tuple[Tensor, ...] = _Split.apply(*args)  # type: ignore[no-untyped-call]
    return slices


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, widths: tuple[int, ...], dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        ctx.dtypes = x.dtype, weight.dtype
        E = len(weight)
        x, weight = x.to(dtype), weight.to(dtype)
        if E % VECTOR:
            weight = F.pad(weight, (0, 0, 0, -E % VECTOR))
        ctx.save_for_backward(x, weight)
        y = F.linear(x, weight)  # (B, L, E or more)
        return torch.split(y[..., :E], list(widths), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.split_linear.kernels import joined

        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.dtypes
        rows = joined(grads, len(weight), x.dtype)  # (N, E or more)
        dx = _product(rows, weight, of_x).view(x.shape)
        E = sum(grad.shape[-1] for grad in grads)
        return dx, _product(rows.T, x.flatten(0, -2), of_weight)[:E], None, None
