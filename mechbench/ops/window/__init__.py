"""The exponential window of implicit filters. Source: Poli et al. 2023, section 3.3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable

_WIDEST = 64  # most columns of a product's factors: the kernels keep whole rows


def window(h: Tensor, alpha: Tensor, step: float, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Return h_t scale (exp(-alpha step t) + shift).

    Args:
        h: (N, D, L) filters.
        alpha: (D,) decay rates, constants.
        step: time between two taps.
        shift: constant added to the decaying exponential.
        scale: factor applied to the whole window.
    """
    if h.dtype == torch.float32 and unavailable(h) is None:
        out: Tensor = _Window.apply(h, alpha, step, shift, scale)  # type: ignore[no-untyped-call]
        return out
    t = torch.arange(h.shape[-1], device=h.device, dtype=h.dtype) * step
    return h * ((torch.exp(-alpha[:, None] * t) + shift) * scale)


def windowed_product(
    weight: Tensor,
    inner: Tensor,
    alpha: Tensor,
    step: float,
    shift: float = 0.0,
    scale: float = 1.0,
) -> Tensor:
    """Return the `window` of weight inner^T, filters that a network's last linear map makes.

    On CUDA one kernel makes them, its products float32 in three parts of ten bits.

    Args:
        weight: (N D, W).
        inner: (L, W) features of each time.
        alpha: (D,) decay rates, constants.
        step: time between two taps.
        shift: constant added to the decaying exponential.
        scale: factor applied to the whole window.

    Returns:
        (N, D, L).
    """
    exact = weight.dtype == inner.dtype == alpha.dtype == torch.float32
    if exact and inner.shape[1] <= _WIDEST and unavailable(inner) is None:
        h: Tensor = _Product.apply(weight, inner, alpha, step, shift, scale)  # type: ignore[no-untyped-call]
        return h
    h = (weight @ inner.T).view(-1, len(alpha), len(inner))
    return window(h, alpha, step, shift, scale)


class _Window(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, alpha: Tensor, step: float, shift: float, scale: float
    ) -> Tensor:
        from mechbench.ops.window.kernels import scale_rows

        ctx.save_for_backward(alpha)
        ctx.window = (step, shift, scale)
        return scale_rows(h, alpha, *ctx.window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.window.kernels import scale_rows

        (alpha,) = ctx.saved_tensors
        return scale_rows(grad, alpha, *ctx.window), None, None, None, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        inner: Tensor,
        alpha: Tensor,
        step: float,
        shift: float,
        scale: float,
    ) -> Tensor:
        from mechbench.ops.window.kernels import product

        weight, inner = weight.contiguous(), inner.contiguous()
        ctx.window = (step, shift, scale)
        h, table, times = product(weight, inner, alpha, *ctx.window)
        ctx.save_for_backward(inner, alpha, table, times)
        return h.view(-1, len(alpha), len(inner))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.window.kernels import product_backward

        inner, alpha, table, times = ctx.saved_tensors
        grads = product_backward(grad.contiguous(), inner, alpha, table, times, ctx.window)
        return *grads, None, None, None, None
