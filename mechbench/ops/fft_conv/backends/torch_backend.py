"""The portable backend: torch.fft (MKL or pocketfft on a CPU, cuFFT on CUDA).

Transforms run in float32 (float64 for float64 inputs) whatever the autocast dtype. The backward
is written by hand: it keeps the inputs, not their spectra, and gradients share transforms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PRIORITY = 0


def unsupported(u: Tensor, h: Tensor) -> str | None:
    """Say why these inputs are refused; only complex and integer dtypes are."""
    for name, x in (("u", u), ("h", h)):
        if not x.is_floating_point():
            return f"{name} is {x.dtype}, expected a floating-point type"
    return None


def transform_length(minimum: int) -> int:
    """Return the smallest n >= minimum of the form 2^a {1, 3, 5, 9, 15}: fast in every library.

    Padding 131,074 tokens to exactly 2 L instead would cost 1.8 times as much: 2 L has the prime
    factor 65,537.
    """
    best = 1 << (minimum - 1).bit_length()
    for odd in (3, 5, 9, 15):
        size = odd << max(0, (-(-minimum // odd) - 1).bit_length())
        best = min(best, size)
    return best


def conv(
    u: Tensor,
    h: Tensor,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
) -> Tensor:
    """Compute `mechbench.ops.fft_conv`."""
    y: Tensor = _FFTConv.apply(u, h, skip, pre_gate, post_gate)  # type: ignore[no-untyped-call]
    return y


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _FFTConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        h: Tensor,
        skip: Tensor | None,
        pre: Tensor | None,
        post: Tensor | None,
    ) -> Tensor:
        L = u.shape[-1]
        n = transform_length(L + min(L, h.shape[-1]) - 1)
        v = _wide(u) if pre is None else _wide(u) * pre
        z: Tensor = torch.fft.irfft(torch.fft.rfft(v, n) * torch.fft.rfft(_wide(h[:, :L]), n), n)[
            ..., :L
        ]
        if skip is not None:
            z = torch.addcmul(z, v, skip[:, None].to(v.dtype))
        z = z.to(u.dtype)
        ctx.n = n
        ctx.save_for_backward(u, h, skip, pre, post, z if post is not None else None)
        return z if post is None else (z * post).to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, h, skip, pre, post, z = ctx.saved_tensors
        L, n = u.shape[-1], ctx.n
        need_u, need_h, need_skip, need_pre, need_post = ctx.needs_input_grad
        du = dh = dskip = dpre = dpost = None
        if need_post:
            dpost = (dy * z).to(post.dtype)
        dz = _wide(dy) if post is None else _wide(dy) * post
        v = _wide(u) if pre is None else _wide(u) * pre
        if need_skip:
            dskip = (dz * v).sum((0, 2)).to(skip.dtype)
        spectrum = torch.fft.rfft(dz, n)
        if need_h:
            K = min(L, h.shape[-1])
            shared = (spectrum * torch.fft.rfft(v, n).conj()).sum(0)
            dh = torch.zeros_like(h)
            dh[:, :K] = torch.fft.irfft(shared, n)[:, :K]
        if need_u or need_pre:
            dv = torch.fft.irfft(spectrum * torch.fft.rfft(_wide(h[:, :L]), n).conj(), n)[..., :L]
            if skip is not None:
                dv = torch.addcmul(dv, dz, skip[:, None].to(dv.dtype))
            if need_u:
                du = (dv if pre is None else dv * pre).to(u.dtype)
            if need_pre:
                dpre = (dv * u).to(pre.dtype)
        return du, dh, dskip, dpre, dpost
