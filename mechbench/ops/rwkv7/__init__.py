"""What RWKV-7 computes of every token before its recurrence and after it, in a pass each.

Source: Peng et al. 2025 (arXiv:2503.14456), time mixing. On a GPU Triton kernels compute it where
the types allow: as single PyTorch operations it takes longer than the recurrence.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.group_norm import head_norm
from mechbench.ops.triton import unavailable
from mechbench.ops.used import noted

SPEED = -math.exp(-0.5)  # log decay of a step at most
_WIDEST = 1024  # channels of a head that one program holds


def rwkv7_signals(
    z: Tensor, rate: Tensor, speed: Tensor, remove: Tensor, blend: Tensor, n_heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return k, what is read and written to remove, and log decays, each (B, H, L, d).

    With a = sigmoid(rate) and kappa = z * remove scaled to norm 1 in each head: k is
    z (1 + (a - 1) blend), read is -kappa, written is kappa a; the decays are
    -e^{-1/2} sigmoid(speed).

    Args:
        z: (B, L, D), the key before its rate.
        rate: (B, L, D).
        speed: (B, L, D).
        remove: (D,), xi of the paper.
        blend: (D,), alpha of the paper.
        n_heads: H, of d = D / H channels.

    Returns:
        k in the dtype of z, the others float32 or wider.
    """
    fits = unavailable(z, rate, speed) is None and z.shape[-1] <= _WIDEST * n_heads
    if noted("rwkv7", z, fits):
        args = z, rate, speed, remove, blend, n_heads
        k, read, written, log_w = _Signals.apply(*args)  # type: ignore[no-untyped-call]
        return k, read, written, log_w
    wide = torch.promote_types(z.dtype, torch.float32)
    log_w, a = SPEED * speed.to(wide).sigmoid(), rate.sigmoid()
    k = (z * (1 + (a - 1) * blend)).to(z.dtype)
    k, a, kappa, log_w = (
        torch.unflatten(s, -1, (n_heads, -1)).transpose(1, 2) for s in (k, a, z * remove, log_w)
    )
    kappa = F.normalize(kappa.to(wide), dim=-1)
    return k, -kappa, kappa * a, log_w


def rwkv7_output(
    y: Tensor, r: Tensor, k: Tensor, v: Tensor, gate: Tensor, bonus: Tensor, norm: nn.GroupNorm
) -> Tensor:
    """Return gate (group_norm(y) + (r (bonus k)^T) v): (B, L, D) in the dtype of the gate.

    Args:
        y: (B, H, L, d).
        r: (B, H, L, d).
        k: (B, H, L, d).
        v: (B, H, L, d).
        gate: (B, L, D).
        bonus: (H, d), rho of the paper.
        norm: of H groups and D channels.
    """
    fits = unavailable(y, r, k, v, gate) is None and y.shape[-1] <= _WIDEST
    if noted("rwkv7", y, fits):
        args = y, r, k, v, gate, bonus, norm.weight, norm.bias, norm.eps
        out: Tensor = _Output.apply(*args)  # type: ignore[no-untyped-call]
        return out
    y = head_norm(y, norm)  # (B, L, D)
    now = (r * k * bonus[:, None]).sum(-1, keepdim=True) * v  # (B, H, L, d)
    return (y + now.transpose(1, 2).flatten(2)).to(gate.dtype) * gate


class _Signals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        rate: Tensor,
        speed: Tensor,
        remove: Tensor,
        blend: Tensor,
        n_heads: int,
    ) -> tuple[Tensor, ...]:
        from mechbench.ops.rwkv7.kernels import signals

        ctx.save_for_backward(z, rate, speed, remove, blend)
        ctx.n_heads = n_heads
        return signals(z, rate, speed, remove, blend, n_heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.rwkv7.kernels import signals_backward

        z, rate, speed, remove, blend = ctx.saved_tensors
        return *signals_backward(z, rate, speed, remove, blend, ctx.n_heads, grads), None


class _Output(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        r: Tensor,
        k: Tensor,
        v: Tensor,
        gate: Tensor,
        bonus: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        from mechbench.ops.rwkv7.kernels import output

        given = y, r, k, v, gate, bonus, weight, bias
        ctx.save_for_backward(*given)
        ctx.eps = eps
        return output(*given, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.rwkv7.kernels import output_backward

        y, r, k, v, gate, bonus, weight, bias = ctx.saved_tensors
        return *output_backward(y, r, k, v, gate, bonus, weight, bias, ctx.eps, dout), None
