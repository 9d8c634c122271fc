"""The gated norm after a layer of linear attention: each head's RMS norm, times silu of a gate.

    out = y / sqrt(mean(y^2) + eps) * weight * silu(gate)

Source: Zhang & Sennrich 2019 (arXiv:1910.07467) for the norm; Sun et al. 2023 (arXiv:2307.08621),
section 2.2, for norms of heads times a gate. On a GPU one kernel does all of it where the types
allow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable
from mechbench.ops.used import noted

_WIDEST = 1024  # largest head


def gated_norm(y: Tensor, gate: Tensor, norm: nn.RMSNorm) -> Tensor:
    """Return the formula of the module docstring, computed in float32 or wider.

    Args:
        y: (B, H, L, d).
        gate: (B, L, H d).
        norm: over d channels, with weight and eps.

    Returns:
        (B, L, H d) in the dtype of `gate`.
    """
    if noted("gated_norm", y, y.shape[-1] <= _WIDEST and unavailable(y, gate) is None):
        out: Tensor = _Fused.apply(y, gate, norm.weight, norm.eps)  # type: ignore[no-untyped-call]
        return out
    y = norm(y.to(torch.promote_types(y.dtype, torch.float32))).to(gate.dtype)
    return y.transpose(1, 2).flatten(2) * F.silu(gate)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
        from mechbench.ops.gated_norm.kernels import forward, tokens

        y, gate = y.transpose(1, 2).contiguous(), tokens(gate)  # (B, L, H, d), (B, L, H d)
        ctx.save_for_backward(y, gate, weight)
        ctx.eps = eps
        return forward(y, gate, weight, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.gated_norm.kernels import backward

        y, gate, weight = ctx.saved_tensors
        dy, dgate, dweight = backward(y, gate, weight, dout.contiguous(), ctx.eps)
        return dy.transpose(1, 2), dgate, dweight.to(weight.dtype), None
