"""NVIDIA's subquadratic-ops (extra `mechbench[cuda]`): fused FFT convolutions on tensor cores.

The package accepts only filters of a power-of-two length; others are padded here.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import torch
from torch import Tensor

from mechbench.ops.triton import unavailable

PRIORITY = 20
ANY_SEQLEN = False
TAILS = False
_SHORT = 16384  # longest filter of the package's one-pass kernel on Hopper
_MIN_SEQLEN = 128  # its shortest filter
_ROWS = 1024  # channels needed to keep a GPU busy, since the one-pass kernel loops over the batch


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


def _padded(x: Tensor, dtype: torch.dtype, length: int) -> Tensor:
    """Return x in `dtype`, contiguous, with zeros on its last axis up to `length`."""
    if x.shape[-1] == length:
        return x.to(dtype).contiguous()
    out = x.new_zeros(*x.shape[:-1], length, dtype=dtype)
    out[..., : x.shape[-1]] = x
    return out


def _length(L: int) -> int:
    return max(_MIN_SEQLEN, 1 << (L - 1).bit_length())


def _fold(B: int, D: int) -> int:
    """Return how many sequences of the batch to pass as additional channels."""
    fold = 1
    while fold * D < _ROWS and B % (2 * fold) == 0:
        fold *= 2
    return fold


def _folded(x: Tensor, fold: int) -> Tensor:
    B, D, L = x.shape
    return x.view(B // fold, fold * D, L)


def core_forward(v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return h * v, and the package's spectra if its kernel for long filters ran."""
    L = v.shape[-1]
    n = _length(L)
    x, weight = (_padded(t[..., :L], v.dtype, n) for t in (v, h))
    ops = torch.ops.subquadratic_ops_torch
    kept: tuple[Tensor, ...] = ()
    if n <= _SHORT:
        fold = _fold(*x.shape[:2])
        y = ops.fft_conv1d_blocked_fwd_primitive(_folded(x, fold), weight.repeat(fold, 1), 0)
        y = y.view(x.shape)
    else:
        y, *spectra = ops.fft_conv1d_long_fwd_primitive(x, weight)
        kept = tuple(spectra)
    return y[..., :L].contiguous(), kept


def core_backward(
    dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and h."""
    L = v.shape[-1]
    n = _length(L)
    ops = torch.ops.subquadratic_ops_torch
    grad = _padded(dz, v.dtype, n)
    if n <= _SHORT:
        x, weight = (_padded(t[..., :L], v.dtype, n) for t in (v, h))
        fold = _fold(*x.shape[:2])
        dx, dweight = ops.fft_conv1d_blocked_bwd_primitive(
            _folded(grad, fold), _folded(x, fold), weight.repeat(fold, 1), 0
        )
        dx, dweight = dx.view(x.shape), dweight.view(fold, *weight.shape).sum(0)
    else:
        dx, dweight = ops.fft_conv1d_long_bwd_primitive(grad, *kept)
    dh = torch.zeros_like(h)
    m = min(L, h.shape[-1])
    dh[:, :m] = dweight[:, :m]
    return dx[..., :L].contiguous(), dh
