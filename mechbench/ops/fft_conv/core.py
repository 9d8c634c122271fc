"""The bare convolution of a CUDA backend, h * v, as a differentiable function.

Fast transforms prefer powers of two, and a task's inputs are often a few tokens longer. So outputs
up to the largest power of two come from the backend, and the few beyond it are summed directly,
unless it says that it takes them as well.
Gates and the skip term take a pass before and one behind it where the kernels can
(`mechbench.ops.fft_conv.kernels.gates`); `mechbench.ops.hyena_mix` fuses them with more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.fft_conv.contract import Core
from mechbench.ops.triton import unavailable

COMPLEX_BYTES = 8  # a number of a spectrum
_MAX_TAIL = 8  # most outputs summed directly: each costs a pass over the filters
_LEAST = 128  # below this length nothing is gained


def split(L: int) -> int:
    """Return how many outputs of L a transform gives; the few beyond are summed directly."""
    below = 1 << (L.bit_length() - 1)
    return below if below >= _LEAST and L - below <= _MAX_TAIL else L


def chunks(v: Tensor, n: int, most: int) -> Iterator[slice]:
    """Return slices of the channels of v (B, D, L) whose spectra of length n are `most` numbers."""
    B, D, _ = v.shape
    size = max(1, most // (B * n))
    return (slice(start, min(D, start + size)) for start in range(0, D, size))


def _by_core(core: Core, L: int) -> int:
    return L if core.ANY_SEQLEN or core.TAILS else split(L)


def conv_forward(core: Core, v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v (B, D, L), contiguous, and what `conv_backward` needs beside v and h."""
    n = _by_core(core, v.shape[-1])
    head, kept = core.core_forward(v[..., :n], h[:, :n])
    if n == v.shape[-1]:
        return head, kept
    from mechbench.ops.fft_conv.kernels.tail import tail_forward_

    z = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    z[..., :n] = head
    tail_forward_(v, h, z, n)
    return z, kept


def conv_backward(
    core: Core, dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    n = _by_core(core, v.shape[-1])
    head_v, head_h = core.core_backward(dz[..., :n], v[..., :n], h[:, :n], kept)
    if n == v.shape[-1] and head_h.shape == h.shape:
        return head_v, head_h
    dv, dh = torch.zeros_like(v), torch.zeros_like(h)
    dv[..., :n] = head_v
    dh[:, :n] = head_h
    if n < v.shape[-1]:
        from mechbench.ops.fft_conv.kernels.tail import tail_backward_

        tail_backward_(dz, v, h, dv, dh, n)
    return dv, dh


class _CoreConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, h: Tensor, core: Core) -> Tensor:
        v, h = v.contiguous(), h.contiguous()
        z, kept = conv_forward(core, v, h)
        ctx.core = core
        ctx.save_for_backward(v, h, *kept)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        v, h, *kept = ctx.saved_tensors
        return *conv_backward(ctx.core, dz.contiguous(), v, h, tuple(kept)), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        h: Tensor,
        skip: Tensor | None,
        pre: Tensor | None,
        post: Tensor | None,
        core: Core,
    ) -> Tensor:
        from mechbench.ops.fft_conv.kernels.gates import after, before

        v, h = before(u, pre), h.contiguous()
        skip = None if skip is None else skip.contiguous()
        z, kept = conv_forward(core, v, h)
        ctx.core = core
        ctx.save_for_backward(u, h, skip, pre, post, v, z, *kept)
        return after(z, v, skip, post)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.fft_conv.kernels.gates import after_backward, before_backward

        u, h, skip, pre, post, v, z, *kept = ctx.saved_tensors
        dz, dskip, dpost = after_backward(dy, z, v, skip, post)
        sent, dh = conv_backward(ctx.core, dz, v, h, tuple(kept))
        du, dpre = before_backward(sent, dz, skip, u, pre)
        return du, dh, None if dskip is None else dskip.to(skip.dtype), dpre, dpost, None


def gated_conv(
    core: Core,
    u: Tensor,
    h: Tensor,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
) -> Tensor:
    """Compute `mechbench.ops.fft_conv` around the convolution of `core`."""
    around = [x for x in (skip, pre_gate, post_gate) if x is not None]
    if around and unavailable(u, *around) is None:
        out: Tensor = _Gated.apply(u, h, skip, pre_gate, post_gate, core)  # type: ignore[no-untyped-call]
        return out
    v = u if pre_gate is None else (u * pre_gate).to(u.dtype)
    z: Tensor = _CoreConv.apply(v, h, core)  # type: ignore[no-untyped-call]
    if skip is not None:
        z = torch.addcmul(z, v, skip[:, None].to(v.dtype))
    return z if post_gate is None else (z * post_gate).to(u.dtype)
