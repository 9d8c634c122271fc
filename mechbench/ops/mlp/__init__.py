"""A layer of hidden units with GELU and a linear map of them, y = W_down gelu(W_up u + b) + b'.

GELU is h times the normal distribution's share below h, in its exact form with the error function.
Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.

On CUDA one kernel does all of it where a half type computes it and the layer is small. The hidden
units, four times as wide as what comes in and goes out, are then neither stored nor kept for the
backward: they are not rounded before the activation, and GELU is off by at most 7e-6.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.linear import linear
from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import roomy, unavailable

_WIDEST = 64, 256  # most D and H: the sums of the weights' gradients fill the registers


def mlp(u: Tensor, up: nn.Linear, down: nn.Linear) -> Tensor:
    """Return down(gelu(up(u))), in autocast's dtype where it is on.

    Args:
        u: (..., D).
        up: with weight (H, D) and bias (H,).
        down: with weight (E, H) and bias (E,).
    """
    if _fused(u, up, down):
        y: Tensor = _MLP.apply(  # type: ignore[no-untyped-call]
            u, up.weight, up.bias, down.weight, down.bias, autocast_dtype(u)
        )
        return y
    return linear(F.gelu(linear(u, up)), down)


def _fused(u: Tensor, up: nn.Linear, down: nn.Linear) -> bool:
    """Return whether the kernels can take it, and gain by it."""
    narrow = up.in_features <= _WIDEST[0] and up.out_features <= _WIDEST[1]
    half = autocast_dtype(u) in (torch.bfloat16, torch.float16)
    free = u.is_cuda and unavailable(u, up.weight, down.weight) is None and roomy(u.device)
    return narrow and up.in_features == down.out_features and half and free


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        up: Tensor,
        up_bias: Tensor,
        down: Tensor,
        down_bias: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        from mechbench.ops.mlp.kernels import forward

        u = u.contiguous()
        y, *low = forward(u, up.contiguous(), up_bias, down.contiguous(), down_bias, dtype)
        ctx.save_for_backward(u, up_bias, *low)
        ctx.dtypes = [t.dtype for t in (up, up_bias, down, down_bias)]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.mlp.kernels import backward

        u, up_bias, low_up, low_down = ctx.saved_tensors
        du, *grads = backward(u, low_up, up_bias, low_down, dy.contiguous())
        return du, *(g.to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True)), None
