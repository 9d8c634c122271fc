"""Group norm of each position's heads, on its own, and with a gate behind it.

    gated_head_norm: out = silu(gate) ((y - mean(y)) / sqrt(var(y) + eps) * weight + bias)

Source: Sun et al. 2023 (arXiv:2307.08621), section 2.2. On a GPU one kernel does all of it where
the types allow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable

_WIDEST = 1024  # largest head


def head_norm(y: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise every head of every position and join the heads.

    As `norm` on each position, but through layer norm: the gradients of group norm's own weights
    took half of a training step on a GPU.

    Args:
        y: (B, H, L, d).
        norm: of H groups and H d channels.

    Returns:
        (B, L, H d) in the dtype of the norm's weights.
    """
    y = F.layer_norm(y.to(norm.weight.dtype), y.shape[-1:], eps=norm.eps)
    return y.transpose(1, 2).flatten(2) * norm.weight + norm.bias


def gated_head_norm(y: Tensor, gate: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return silu(gate) times `head_norm` of y.

    Args:
        y: (B, H, L, d).
        gate: (B, L, H d).
        norm: of H groups and H d channels.

    Returns:
        (B, L, H d) in the dtype of the gate (without kernels that to which it and the norm's
        weights promote).
    """
    if y.shape[-1] <= _WIDEST and unavailable(y, gate) is None:
        args = y.transpose(1, 2).flatten(2), gate, norm.weight, norm.bias, y.shape[1], norm.eps
        out: Tensor = _Fused.apply(*args)  # type: ignore[no-untyped-call]
        return out
    return F.silu(gate) * head_norm(y, norm)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, n_heads: int, eps: float
    ) -> Tensor:
        from mechbench.ops.group_norm.kernels import forward

        ctx.save_for_backward(y, gate, weight, bias)
        ctx.rest = n_heads, eps
        return forward(y, gate, weight, bias, *ctx.rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.group_norm.kernels import backward

        y, gate, weight, bias = ctx.saved_tensors
        n_heads, eps = ctx.rest
        dy, dgate, dweight, dbias = backward(y, gate, weight, bias, n_heads, eps, dout)
        return dy, dgate, dweight.to(weight.dtype), dbias.to(bias.dtype), None, None
