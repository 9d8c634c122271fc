"""Norms after a layer of linear attention: each head's RMS norm, and a gate behind or before it.

    gated_norm: out = y / sqrt(mean(y^2) + eps) * weight * silu(gate)
    heads_norm: the same with silu, the sigmoid or no gate
    norm_gated: out = x / sqrt(mean(x^2) + eps) * weight,   x = y silu(gate)

Source: Zhang & Sennrich 2019 (arXiv:1910.07467) for the norm; Sun et al. 2023 (arXiv:2307.08621),
section 2.2, for norms of heads times a gate; Dao & Gu 2024 (arXiv:2405.21060), section 7.1, for a
norm behind the gate. On a GPU one kernel does all of it where the types allow.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable
from mechbench.ops.used import noted

_WIDEST = 1024  # largest head


Act = Literal["silu", "sigmoid"]


def gated_norm(y: Tensor, gate: Tensor, norm: nn.RMSNorm) -> Tensor:
    """Return the first formula of the module docstring, computed in float32 or wider.

    Args:
        y: (B, H, L, d).
        gate: (B, L, H d).
        norm: over d channels, with weight and eps.

    Returns:
        (B, L, H d) in the dtype of `gate`.
    """
    if _fits(y, gate):
        return _fused(y, gate, norm, gate.dtype, place=1)
    y = _widely(norm, y).to(gate.dtype)
    return y.transpose(1, 2).flatten(2) * F.silu(gate)


def heads_norm(
    y: Tensor, norm: nn.RMSNorm, dtype: torch.dtype, gate: Tensor | None = None, act: Act = "silu"
) -> Tensor:
    """Return the second formula of the module docstring.

    Args:
        y: (B, H, L, d).
        norm: over d channels, with weight and eps.
        dtype: of what is returned.
        gate: (B, L, H d), before its activation; None for none.
        act: the gate's activation.

    Returns:
        (B, L, H d).
    """
    if _fits(y, gate):
        return _fused(y, gate, norm, dtype, place=0 if gate is None else 1, silu=act == "silu")
    out = _widely(norm, y.transpose(1, 2)).flatten(2).to(dtype)
    if gate is None:
        return out
    return out * (F.silu(gate) if act == "silu" else gate.sigmoid())


def norm_gated(y: Tensor, gate: Tensor, norm: nn.RMSNorm) -> Tensor:
    """Return the third formula of the module docstring.

    Args:
        y: (B, L, E).
        gate: (B, L, E).
        norm: over E channels, with weight and eps.

    Returns:
        (B, L, E) in the dtype of `gate`.
    """
    if _fits(y, gate):
        return _fused(y[:, None], gate, norm, gate.dtype, place=2)
    return _widely(norm, y * F.silu(gate)).to(gate.dtype)


def _widely(norm: nn.RMSNorm, y: Tensor) -> Tensor:
    """Return the norm of y in float32 or wider: PyTorch warns where a weight is wider than that."""
    out: Tensor = norm(y.to(torch.promote_types(y.dtype, torch.float32)))
    return out


def _fits(y: Tensor, gate: Tensor | None) -> bool:
    tensors = [y] if gate is None else [y, gate]
    return noted("gated_norm", y, y.shape[-1] <= _WIDEST and unavailable(*tensors) is None)


def _fused(
    y: Tensor,
    gate: Tensor | None,
    norm: nn.RMSNorm,
    dtype: torch.dtype,
    *,
    place: int,
    silu: bool = True,
) -> Tensor:
    args = y, gate, norm.weight, norm.eps, dtype, (place, silu)
    out: Tensor = _Fused.apply(*args)  # type: ignore[no-untyped-call]
    return out


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        gate: Tensor | None,
        weight: Tensor,
        eps: float,
        dtype: torch.dtype,
        form: tuple[int, bool],
    ) -> Tensor:
        from mechbench.ops.gated_norm.kernels import Form, forward, tokens

        y = y.transpose(1, 2).contiguous()  # (B, L, H, d)
        gate = None if gate is None else tokens(gate)  # (B, L, H d)
        ctx.save_for_backward(y, gate, weight)
        ctx.eps, ctx.form = eps, form
        return forward(y, gate, weight, eps, Form(*form), dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.gated_norm.kernels import Form, backward

        y, gate, weight = ctx.saved_tensors
        dout = dout.contiguous()
        dy, dgate, dweight = backward(y, gate, weight, dout, ctx.eps, Form(*ctx.form))
        return dy.transpose(1, 2), dgate, dweight.to(weight.dtype), None, None, None
