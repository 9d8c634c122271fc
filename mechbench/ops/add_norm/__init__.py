"""A residual addition and the layer norm that follows it.

On CUDA one kernel does both: PyTorch's own norm uses a block of threads per row, which wastes most
of the bandwidth at the widths of small models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable

_WIDEST = 4096  # largest D of a row that one program holds


def add_norm(
    x: Tensor, delta: Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Return x + delta and its layer norm.

    Args:
        x: (..., D) residual stream.
        delta: (..., D) tensor to add, or None.
        norm: layer norm over D with weight and bias.
        dtype: dtype of the norm on CUDA, by default x's; elsewhere the norm has x's dtype.
    """
    if x.shape[-1] <= _WIDEST and x.is_cuda and unavailable(x) is None:
        total, out = _AddNorm.apply(  # type: ignore[no-untyped-call]
            x, delta, norm.weight, norm.bias, norm.eps, dtype or x.dtype
        )
        return total, out
    total = x if delta is None else x + delta
    return total, norm(total)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        delta: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        from mechbench.ops.add_norm.kernels import forward

        total, out = forward(x, delta, weight, bias, eps, dtype)
        if delta is None:  # autograd needs an output that is not the input
            total = x.view_as(x)
        ctx.save_for_backward(total, weight)
        ctx.delta_dtype, ctx.eps = None if delta is None else delta.dtype, eps
        ctx.set_materialize_grads(False)
        return total, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtotal: Tensor | None, dout: Tensor | None) -> tuple[Any, ...]:
        from mechbench.ops.add_norm.kernels import backward

        total, weight = ctx.saved_tensors
        if dout is None:
            ddelta = None if ctx.delta_dtype is None else dtotal
            return dtotal, ddelta, None, None, None, None
        dx, ddelta, dweight, dbias = backward(total, weight, dout, dtotal, ctx.delta_dtype, ctx.eps)
        return dx, ddelta, dweight.to(weight.dtype), dbias.to(weight.dtype), None, None
