"""The bare convolution of a CUDA backend, h * v, as a differentiable function.

Gates and the skip term around it are PyTorch's own; `mechbench.ops.hyena_mix` fuses them for the
operator's usual form.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Core(Protocol):
    """What a backend with kernels of its own gives."""

    def core_forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return h * v (B, D, L) in v's dtype, and tensors to keep for the backward."""

    def core_backward(
        self, dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of v, in its dtype, and of h (D, K), in its dtype."""


class _CoreConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, h: Tensor, core: Core) -> Tensor:
        z, kept = core.core_forward(v, h)
        ctx.core = core
        ctx.save_for_backward(v, h, *kept)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        v, h, *kept = ctx.saved_tensors
        dv, dh = ctx.core.core_backward(dz.contiguous(), v, h, tuple(kept))
        return dv, dh, None


def gated_conv(
    core: Core,
    u: Tensor,
    h: Tensor,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
) -> Tensor:
    """Compute `mechbench.ops.fft_conv` around the convolution of `core`."""
    v = u if pre_gate is None else (u * pre_gate).to(u.dtype)
    z: Tensor = _CoreConv.apply(v, h, core)  # type: ignore[no-untyped-call]
    if skip is not None:
        z = torch.addcmul(z, v, skip[:, None].to(v.dtype))
    return z if post_gate is None else (z * post_gate).to(u.dtype)
