"""The mixing of an order-2 Hyena in the released form, from its projections to its last gate.

    w = s(p_x1) s(p_v),  y = s(p_x2) (h * w + skip w),  s(p) the short convolution of p + in_bias

Source: Poli et al. 2023, Definition 3.1, as in the authors' code. On CUDA everything but the long
convolution runs in four kernels (`mechbench.ops.hyena_mix.kernels`), or in one and those of the
convolution, where its backend takes the rest in (`Mixing`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.fft_conv import fft_conv, pick_backend
from mechbench.ops.fft_conv.contract import Core, Mixing, Projections
from mechbench.ops.fft_conv.core import conv_backward, conv_forward
from mechbench.ops.short_conv import short_conv
from mechbench.ops.triton import beside, unavailable, whole_vectors

_BEFORE = 16  # tokens before the last ones: a short convolution looks at two of them


def hyena_mix(
    p: Tensor,
    in_bias: Tensor,
    short_weight: Tensor,
    short_bias: Tensor,
    h: Tensor,
    skip: Tensor,
    backend: str = "auto",
) -> Tensor:
    """Mix the projections p of v, x^1 and x^2.

    Args:
        p: (B, 3D, L), without their bias; channels or the batch may come first in memory.
        in_bias: (3D,), the bias of the projections.
        short_weight: (3D, K), the tap of lag 0 first.
        short_bias: (3D,).
        h: (D, L) filters.
        skip: (D,).
        backend: as for `fft_conv`.

    Returns:
        (B, D, L) in the dtype of p; on CUDA in memory as p is.

    Raises:
        ConfigError: no such backend, or it cannot take the inputs.
    """
    D = p.shape[1] // 3
    core = pick_backend(p[:, :D], h, backend)
    # 3: the only number of taps that the kernels support.
    if isinstance(core, Core) and unavailable(p) is None and short_weight.shape[1] == 3:
        p = beside(p)
        n = _tokens_within(core, p)
        args: tuple[Any, ...] = (p, in_bias, short_weight, short_bias, h, skip, core)
        if n:
            args = *args, n, torch.is_grad_enabled()
        y: Tensor = (_Within if n else _Around).apply(*args)  # type: ignore[no-untyped-call]
        return y
    p = p + in_bias[:, None].to(p.dtype)
    s = short_conv(p, short_weight.to(p.dtype), short_bias.to(p.dtype))
    v, x1, x2 = s.chunk(3, 1)
    return fft_conv(v, h, skip, x1, x2, backend=backend)


def _tokens_within(core: object, p: Tensor) -> int:
    return core.mixes(p) if isinstance(core, Mixing) else 0


class _Around(torch.autograd.Function):
    """Passes of their own around the convolution of a core."""

    @staticmethod
    def forward(
        ctx: Any,
        p: Tensor,
        shift: Tensor,
        taps: Tensor,
        bias: Tensor,
        h: Tensor,
        skip: Tensor,
        core: Core,
    ) -> Tensor:
        from mechbench.ops.hyena_mix.kernels import finish_forward, gate_forward

        # Where any length is as good, one whose rows begin at whole vectors.
        width = whole_vectors(p.shape[2]) if core.ANY_SEQLEN else p.shape[2]
        w = gate_forward(p, taps, bias, shift, width)
        z, kept = conv_forward(core, w, h)
        ctx.core = core
        ctx.save_for_backward(p, shift, taps, bias, skip, h, w, z, *kept)
        return finish_forward(p, taps, bias, shift, z, w, skip)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.hyena_mix.kernels import finish_backward

        p, shift, taps, bias, skip, h, w, z, *kept = ctx.saved_tensors
        dy = beside(dy)
        dz = finish_backward(p, taps, bias, shift, dy, w.shape[2])
        dw, dh = conv_backward(ctx.core, dz, w, h, tuple(kept))
        return *_gradients(p, shift, taps, bias, skip, dy, z, dw, dh), None


class _Within(torch.autograd.Function):
    """The first n tokens within the kernels of a core, the few that are left around them."""

    @staticmethod
    def forward(
        ctx: Any,
        p: Tensor,
        shift: Tensor,
        taps: Tensor,
        bias: Tensor,
        h: Tensor,
        skip: Tensor,
        core: Mixing,
        n: int,
        keep: bool,
    ) -> Tensor:
        from mechbench.ops.hyena_mix.kernels import empty_rows, finish_forward, gate_forward

        D, L = len(skip), p.shape[2]
        y, late = empty_rows(p, D), p[:, :D, n:]
        if n < L:
            last = p[..., n - _BEFORE :]
            w = gate_forward(last, taps, bias, shift)
            late = w[..., _BEFORE:]
        around = Projections(p, taps.float(), bias.float(), shift.float())
        z, kept = core.mix_forward(around, skip.float(), h, y, late, keep)
        if n < L:
            z_last = z[..., n - _BEFORE : L].contiguous()
            y_last = finish_forward(last, taps, bias, shift, z_last, w, skip)
            y[..., n:] = y_last[..., _BEFORE:]
        ctx.core, ctx.n, ctx.n_taps, ctx.dtype = core, n, h.shape[1], h.dtype
        ctx.save_for_backward(p, shift, taps, bias, skip, z, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.hyena_mix.kernels import finish_backward

        p, shift, taps, bias, skip, z, *kept = ctx.saved_tensors
        dy, n = beside(dy), ctx.n
        late = dy[..., n:]
        if n < p.shape[2]:
            last = slice(n - _BEFORE, None)
            dz = finish_backward(p[..., last], taps, bias, shift, dy[..., last])
            late = dz[..., _BEFORE:]
        around = Projections(p, taps.float(), bias.float(), shift.float())
        dw, dh = ctx.core.mix_backward(around, dy, late, ctx.n_taps, tuple(kept))
        dh = dh.to(ctx.dtype)
        return *_gradients(p, shift, taps, bias, skip, dy, z, dw, dh), None, None, None


def _gradients(
    p: Tensor,
    shift: Tensor,
    taps: Tensor,
    bias: Tensor,
    skip: Tensor,
    dy: Tensor,
    z: Tensor,
    dw: Tensor,
    dh: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of p, shift, taps, bias, h and skip."""
    from mechbench.ops.hyena_mix.kernels import gate_backward

    dp, dtaps, dbias, dshift, dskip = gate_backward(p, taps, bias, shift, skip, dy, z, dw)
    small = ((dshift, shift), (dtaps, taps), (dbias, bias), (dskip, skip))
    dshift, dtaps, dbias, dskip = (g.to(x.dtype) for g, x in small)
    return dp, dshift, dtaps, dbias, dh, dskip
