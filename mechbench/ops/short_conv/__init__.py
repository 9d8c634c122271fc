"""Causal depthwise convolution with a few explicit taps.

    y_t = act(sum_k weight_k u_{t-k} + bias),   act the identity or silu

`short_conv_tokens` takes tokens first, as linear maps leave them; on a GPU one fused Triton kernel
computes it without a transposed copy, and one its gradients (`mechbench.ops.short_conv.kernels`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import unavailable
from mechbench.ops.used import noted

_MOST_TAPS = 8  # that the kernels support: a program keeps as many tokens in registers


def short_conv(u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return y_t = sum_k weight_k u_{t-k} + bias per channel, zeros before the start.

    Args:
        u: (B, D, L).
        weight: (D, K), the tap of lag 0 first.
        bias: (D,) or None.

    Returns:
        (B, D, L).
    """
    K = weight.shape[1]
    return F.conv1d(F.pad(u, (K - 1, 0)), weight.flip(1)[:, None], bias, groups=u.shape[1])


def short_conv_tokens(
    u: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """Return `short_conv` of u with tokens first, then silu if asked for.

    The kernels round the result alone; elsewhere weight and bias take the dtype of u before.

    Args:
        u: (B, L, D); may be a slice of the columns of something wider.
        weight: (D, K), the tap of lag 0 first; of any floating-point dtype.
        bias: (D,) or None; of any floating-point dtype.
        silu: whether y passes silu.

    Returns:
        (B, L, D), in autocast's dtype where it is on, otherwise in that of u.
    """
    if noted("short_conv", u, weight.shape[1] <= _MOST_TAPS and unavailable(u) is None):
        out: Tensor = _ShortConv.apply(u, weight, bias, silu, autocast_dtype(u))  # type: ignore[no-untyped-call]
        return out
    bias = bias if bias is None else bias.to(u.dtype)
    y = short_conv(u.transpose(1, 2), weight.to(u.dtype), bias).transpose(1, 2)
    return F.silu(y) if silu else y


def short_conv_reference(u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `short_conv` tap by tap: for tests."""
    y = u.new_zeros(u.shape)
    for k in range(min(weight.shape[1], u.shape[-1])):
        y[..., k:] += weight[:, k, None] * u[..., : u.shape[-1] - k]
    return y if bias is None else y + bias[:, None]


class _ShortConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, dtype: torch.dtype
    ) -> Tensor:
        from mechbench.ops.short_conv.kernels import forward

        ctx.save_for_backward(u, weight, bias)
        ctx.silu = silu
        return forward(u, weight, bias, silu, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.short_conv.kernels import backward

        u, weight, bias = ctx.saved_tensors
        du, dweight, dbias = backward(u, weight, bias, ctx.silu, dy)
        shift = None if bias is None else dbias.to(bias.dtype)
        return du, dweight.to(weight.dtype), shift, None, None
