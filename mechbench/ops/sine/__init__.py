"""The sine activation of implicit filters. Source: Poli et al. 2023, section 3.3 (after SIREN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable

_WIDEST = 2048  # most features of a row that one program holds


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
