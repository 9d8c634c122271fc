"""The sine activation of implicit filters. Source: Poli et al. 2023, section 3.3 (after SIREN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.linear import affine
from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import unavailable

_WIDEST = 2048  # most features of a row that one program holds
# Most features that a layer takes and gives there: programs keep all its weights.
_WIDEST_LAYER = 64


def sine(x: Tensor, freq: Tensor) -> Tensor:
    """Return sin(freq x).

    Args:
        x: (..., W) features.
        freq: (W,) one frequency per feature.
    """
    if x.dtype == freq.dtype == torch.float32 and len(freq) <= _WIDEST and not unavailable(x):
        y: Tensor = _Sine.apply(x, freq)  # type: ignore[no-untyped-call]
        return y
    return torch.sin(freq * x)


def sine_layer(x: Tensor, weight: Tensor, bias: Tensor, freq: Tensor) -> Tensor:
    """Return sin(freq (W x + b)).

    On CUDA one kernel does all of it, its products float32 in three parts of ten bits, and one the
    backward, which computes W x + b again.

    Args:
        x: (..., K) features.
        weight: (W, K).
        bias: (W,).
        freq: (W,) one frequency per feature.
    """
    exact = all(t.dtype == torch.float32 for t in (x, weight, bias, freq))
    # Under autocast the product would be of half types.
    exact = exact and autocast_dtype(x) == torch.float32
    if exact and max(weight.shape) <= _WIDEST_LAYER and unavailable(x) is None:
        y: Tensor = _Layer.apply(x, weight, bias, freq)  # type: ignore[no-untyped-call]
        return y
    return sine(affine(x, weight, bias), freq)


class _Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, freq: Tensor) -> Tensor:
        from mechbench.ops.sine.kernels import forward

        ctx.save_for_backward(x, freq)
        return forward(x, freq)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        from mechbench.ops.sine.kernels import backward

        x, freq = ctx.saved_tensors
        return backward(x, freq, dy)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, freq: Tensor) -> Tensor:
        from mechbench.ops.sine.kernels import layer_forward

        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight, bias, freq)
        return layer_forward(x, weight, bias, freq)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.sine.kernels import layer_backward

        x, weight, bias, freq = ctx.saved_tensors
        return layer_backward(x, weight, bias, freq, dy.contiguous(), ctx.needs_input_grad[0])
