"""The mixing of an order-2 Hyena in the released form, from its projections to its last gate.

    w = s(p_x1) s(p_v),  y = s(p_x2) (h * w + skip w),  s the short convolution

Source: Poli et al. 2023, Definition 3.1, as in the authors' code. On CUDA everything but the long
convolution runs in four kernels (`mechbench.ops.kernels.short_gate`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.core_conv import Core
from mechbench.ops.fft_conv import fft_conv, pick_backend
from mechbench.ops.kernels import unavailable
from mechbench.ops.short_conv import short_conv


def hyena_mix(
    p: Tensor,
    short_weight: Tensor,
    short_bias: Tensor,
    h: Tensor,
    skip: Tensor,
    backend: str = "auto",
) -> Tensor:
    """Mix the projections p of v, x^1 and x^2.

    Args:
        p: (B, 3D, L).
        short_weight: (3D, K), the tap of lag 0 first.
        short_bias: (3D,).
        h: (D, L) filters.
        skip: (D,).
        backend: as for `fft_conv`.

    Returns:
        (B, D, L) in the dtype of p.

    Raises:
        ConfigError: no such backend, or it cannot take the inputs.
    """
    D = p.shape[1] // 3
    core = pick_backend(p[:, :D], h, backend)
    if hasattr(core, "core_forward") and unavailable(p) is None:
        y: Tensor = _Mix.apply(p, short_weight, short_bias, h, skip, core)  # type: ignore[no-untyped-call]
        return y
    s = short_conv(p, short_weight.to(p.dtype), short_bias.to(p.dtype))
    v, x1, x2 = s.chunk(3, 1)
    return fft_conv(v, h, skip, x1, x2, backend=backend)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, p: Tensor, taps: Tensor, bias: Tensor, h: Tensor, skip: Tensor, core: Core
    ) -> Tensor:
        from mechbench.ops.kernels.short_gate import finish_forward, gate_forward

        p = p.contiguous()
        w = gate_forward(p, taps, bias)
        z, kept = core.core_forward(w, h)
        ctx.core = core
        ctx.save_for_backward(p, taps, bias, h, skip, w, z, *kept)
        return finish_forward(p, taps, bias, z, w, skip)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.kernels.short_gate import finish_backward, gate_backward

        p, taps, bias, h, skip, w, z, *kept = ctx.saved_tensors
        dy = dy.contiguous()
        dz = finish_backward(p, taps, bias, dy)
        dw, dh = ctx.core.core_backward(dz, w, h, tuple(kept))
        dp, dtaps, dbias, dskip = gate_backward(p, taps, bias, skip, dy, z, w, dz, dw)
        return dp, dtaps.to(taps.dtype), dbias.to(bias.dtype), dh, dskip.to(skip.dtype), None
