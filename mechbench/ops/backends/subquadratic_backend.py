"""NVIDIA's subquadratic-ops (extra `mechbench[cuda]`): fused FFT convolutions on tensor cores.

The package takes filters of a power-of-two length and pads the rest, so 131,074 tokens would cost
what 262,144 do. Inputs a few tokens over a power of two, as the tasks' are, go through it up to
that length; the few outputs beyond are summed directly.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache

import torch
from torch import Tensor

from mechbench.ops.core_conv import gated_conv
from mechbench.ops.kernels import unavailable

PRIORITY = 20
_MAX_TAIL = 16  # outputs beyond a power of two that are summed directly
_SHORT = 16384  # longest filter of the package's one-pass kernel on Hopper
_MIN_SEQLEN = 128  # its shortest filter


@cache
def _missing() -> str | None:
    for package in ("subquadratic_ops_torch", "tvm_ffi"):
        if importlib.util.find_spec(package) is None:
            return (
                f"the package {package} is not installed: pip install 'mechbench[cuda]' (Linux, "
                "CUDA 13; subquadratic-ops-torch-cu12 for CUDA 12)"
            )
    try:
        import subquadratic_ops_torch.fft_causal_conv1d  # noqa: F401
    except Exception as error:  # a driver or a library that does not fit this machine
        return f"subquadratic-ops does not load: {' '.join(str(error).split())[:200]}"
    return None


def unsupported(u: Tensor, h: Tensor) -> str | None:
    """Say why these inputs are refused: the package, CUDA and a half type are needed.

    float32 is refused, because the package computes it with errors near 1e-3 of the result.
    """
    reason = unavailable(u, h) or _missing()
    if reason is None and u.dtype not in (torch.bfloat16, torch.float16):
        reason = f"the input is {u.dtype}: the package is accurate to bfloat16 only"
    if reason is None and u.shape[-1] < _MIN_SEQLEN:
        reason = f"{u.shape[-1]} tokens: below {_MIN_SEQLEN} padding would cost more than it saves"
    return reason


def conv(
    u: Tensor,
    h: Tensor,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
) -> Tensor:
    """Compute `mechbench.ops.fft_conv`."""
    return gated_conv(sys.modules[__name__], u, h, skip, pre_gate, post_gate)


def _lengths(L: int) -> tuple[int, int]:
    """Return (n, P): the first n outputs come from the package, at the padded length P >= n."""
    below = 1 << (L.bit_length() - 1)
    if L - below <= _MAX_TAIL and below >= _MIN_SEQLEN:
        return below, below
    return L, max(_MIN_SEQLEN, 1 << (L - 1).bit_length())


def _fit(x: Tensor, n: int, padded: int, dtype: torch.dtype) -> Tensor:
    """Return the first n entries of the last axis, contiguous, zeros up to `padded`."""
    n = min(n, x.shape[-1])
    if n == padded:
        return x[..., :n].to(dtype).contiguous()
    out = x.new_zeros(*x.shape[:-1], padded, dtype=dtype)
    out[..., :n] = x[..., :n]
    return out


def core_forward(v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v, and the package's spectra where its long kernel ran."""
    from mechbench.ops.kernels.tail import tail_forward_

    L = v.shape[-1]
    n, padded = _lengths(L)
    x, weight = (_fit(t, n, padded, v.dtype) for t in (v, h))
    ops = torch.ops.subquadratic_ops_torch
    if padded <= _SHORT:
        y, kept = ops.fft_conv1d_blocked_fwd_primitive(x, weight, 0), ()
    else:
        y, *spectra = ops.fft_conv1d_long_fwd_primitive(x, weight)
        kept = tuple(spectra)
    if y.shape[-1] == L:
        return y, kept
    z = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    z[..., :n] = y[..., :n]
    if n < L:
        tail_forward_(v, h, z, n)
    return z, kept


def core_backward(
    dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    from mechbench.ops.kernels.tail import tail_backward_

    L, K = v.shape[-1], h.shape[-1]
    n, padded = _lengths(L)
    ops = torch.ops.subquadratic_ops_torch
    grad = _fit(dz, n, padded, v.dtype)
    if padded <= _SHORT:
        x, weight = (_fit(t, n, padded, v.dtype) for t in (v, h))
        dx, dweight = ops.fft_conv1d_blocked_bwd_primitive(grad, x, weight, 0)
    else:
        dx, dweight = ops.fft_conv1d_long_bwd_primitive(grad, *kept)
    if dx.shape[-1] == L and dweight.shape == h.shape:
        return dx, dweight.to(h.dtype)
    dv = v.new_zeros(v.shape)
    dv[..., :n] = dx[..., :n]
    dh = h.new_zeros(h.shape)
    m = min(n, K)
    dh[:, :m] = dweight[:, :m]
    if n < L:
        tail_backward_(dz, v, h, dv, dh, n)
    return dv, dh
