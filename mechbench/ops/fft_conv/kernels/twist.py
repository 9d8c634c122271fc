"""Twisted spectra: causal convolution of real signals by complex transforms without padding.

With w = exp(i pi / 2n), so that w^n = i, let x~_t = x_t w^t. The cyclic convolution of v~ and h~
of length n >= L holds w^t (causal_t + i wrapped_t), so its real part after untwisting is the causal
convolution alone: what wraps around lands in the imaginary part. A transform of n complex numbers
costs as much as a padded real one of 2n, but needs no padding and no copy, and any n >= L will do.

Source: right-angle circular convolution, Nussbaumer 1982, "Fast Fourier Transform and Convolution
Algorithms", chapter 5.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024
_SUM_BLOCK = 128  # block size where programs loop over the batch: small, so that there are many


@triton.jit
def _rotation(t, rate):
    angle = t.to(tl.float32) * rate
    return tl.cos(angle), tl.sin(angle)


@triton.jit
def _twist_kernel(x, out, L, n, rate, stride_b, stride_d, BLOCK: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    row = b.to(tl.int64) * stride_b + d.to(tl.int64) * stride_d
    value = tl.load(x + row + t, mask=t < L, other=0.0).to(tl.float32)
    cos, sin = _rotation(t, rate)
    pair = block * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    base = (b.to(tl.int64) * tl.num_programs(1) + d) * 2 * n
    tl.store(out + base + pair, tl.interleave(value * cos, value * sin), mask=pair < 2 * n)


@triton.jit
def _untwist_kernel(z, out, L, n, rate, scale, stride_b, stride_d, BLOCK: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = block * BLOCK + tl.arange(0, BLOCK)
    pair = block * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    base = (b.to(tl.int64) * tl.num_programs(1) + d) * 2 * n
    both = tl.load(z + base + pair, mask=pair < 2 * n, other=0.0)
    re, im = tl.split(tl.reshape(both, (BLOCK, 2)))
    cos, sin = _rotation(t, rate)
    row = b.to(tl.int64) * stride_b + d.to(tl.int64) * stride_d
    value = (re * cos + im * sin) * scale
    tl.store(out + row + t, value.to(out.dtype.element_ty), mask=t < L)


@triton.jit
def _product_kernel(z, h, n, BLOCK: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    pair = block * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    mask = pair < 2 * n
    base = (b.to(tl.int64) * tl.num_programs(1) + d) * 2 * n
    zr, zi = tl.split(tl.reshape(tl.load(z + base + pair, mask=mask, other=0.0), (BLOCK, 2)))
    filter_row = d.to(tl.int64) * 2 * n
    hr, hi = tl.split(tl.reshape(tl.load(h + filter_row + pair, mask=mask, other=0.0), (BLOCK, 2)))
    tl.store(z + base + pair, tl.interleave(zr * hr - zi * hi, zr * hi + zi * hr), mask=mask)


@triton.jit(do_not_specialize=["B"])
def _correlation_kernel(dz, v, h, dh, B, D, n, BLOCK: tl.constexpr):
    block, d = tl.program_id(0), tl.program_id(1)
    pair = block * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    mask = pair < 2 * n
    filter_row = d.to(tl.int64) * 2 * n
    hr, hi = tl.split(tl.reshape(tl.load(h + filter_row + pair, mask=mask, other=0.0), (BLOCK, 2)))
    dhr = tl.zeros((BLOCK,), tl.float32)
    dhi = tl.zeros((BLOCK,), tl.float32)
    for b in range(B):
        base = (tl.cast(b, tl.int64) * D + d) * 2 * n
        gr, gi = tl.split(tl.reshape(tl.load(dz + base + pair, mask=mask, other=0.0), (BLOCK, 2)))
        vr, vi = tl.split(tl.reshape(tl.load(v + base + pair, mask=mask, other=0.0), (BLOCK, 2)))
        dhr += gr * vr + gi * vi
        dhi += gi * vr - gr * vi
        tl.store(dz + base + pair, tl.interleave(gr * hr + gi * hi, gi * hr - gr * hi), mask=mask)
    tl.store(dh + filter_row + pair, tl.interleave(dhr, dhi), mask=mask)


def _block(n: int) -> int:
    return min(_BLOCK, triton.next_power_of_2(n))


def twisted_fft(x: Tensor, n: int) -> Tensor:
    """Return the spectrum of the twisted rows of x (B, D, L), L <= n: (B, D, n) complex64."""
    B, D, L = x.shape
    x = x if x.stride(2) == 1 else x.contiguous()
    out = torch.empty(B, D, n, dtype=torch.complex64, device=x.device)
    block = _block(n)
    _twist_kernel[(triton.cdiv(n, block), D, B)](
        x,
        torch.view_as_real(out),
        L,
        n,
        math.pi / (2 * n),
        x.stride(0),
        x.stride(1),
        BLOCK=block,
    )
    return torch.fft.fft(out)


def untwisted_ifft(spectrum: Tensor, out: Tensor) -> None:
    """Write the real part of the untwisted inverse transform of `spectrum` (B, D, n) to `out`.

    Args:
        spectrum: (B, D, n) complex64.
        out: (B, D, L), L <= n, its last axis contiguous.
    """
    (B, D, n), L = spectrum.shape, out.shape[-1]
    z = torch.fft.ifft(spectrum, norm="forward")  # the kernel applies the 1/n
    block = _block(n)
    _untwist_kernel[(triton.cdiv(L, block), D, B)](
        torch.view_as_real(z),
        out,
        L,
        n,
        math.pi / (2 * n),
        1.0 / n,
        out.stride(0),
        out.stride(1),
        BLOCK=block,
    )


def multiply_(z: Tensor, h: Tensor) -> None:
    """Multiply z (B, D, n) in place by h (D, n), both complex64."""
    B, D, n = z.shape
    block = _block(n)
    _product_kernel[(triton.cdiv(n, block), D, B)](
        torch.view_as_real(z), torch.view_as_real(h), n, BLOCK=block
    )


def correlate_(dz: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """Multiply dz (B, D, n) in place by conj(h); return sums of dz conj(v) over B, (D, n)."""
    B, D, n = dz.shape
    dh = torch.empty_like(h)
    block = min(_block(n), _SUM_BLOCK)
    _correlation_kernel[(triton.cdiv(n, block), D)](
        *(torch.view_as_real(x) for x in (dz, v, h, dh)), B, D, n, BLOCK=block
    )
    return dh
