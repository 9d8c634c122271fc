"""The last few outputs of a causal convolution, summed directly: y_t = sum_{s <= t} h_{t-s} v_s.

For lengths a few tokens above one that suits a fast transform; O(R B D L) for R outputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048
_SUM_BLOCK = 128  # block size where programs loop over the batch: small, so that there are many


@triton.jit
def _forward_kernel(v, h, part, L, K, n, D, BLOCK: tl.constexpr, R: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    s = block * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(v + (b.to(tl.int64) * D + d) * L + s, mask=s < L, other=0.0).to(tl.float32)
    row = d.to(tl.int64) * K
    out = part + ((block.to(tl.int64) * tl.num_programs(2) + b) * D + d) * R
    for r in tl.static_range(R):
        lag = n + r - s
        tap = tl.load(h + row + lag, mask=(lag >= 0) & (lag < K), other=0.0).to(tl.float32)
        tl.store(out + r, tl.sum(tap * value))


@triton.jit
def _input_kernel(dz, h, dv, L, K, n, D, BLOCK: tl.constexpr, R: tl.constexpr):
    block, d, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    s = block * BLOCK + tl.arange(0, BLOCK)
    row = (b.to(tl.int64) * D + d) * L
    total = tl.load(dv + row + s, mask=s < L, other=0.0).to(tl.float32)
    for r in tl.static_range(R):
        lag = n + r - s
        tap = tl.load(h + d.to(tl.int64) * K + lag, mask=(lag >= 0) & (lag < K), other=0.0)
        total += tap.to(tl.float32) * tl.load(dz + row + n + r).to(tl.float32)
    tl.store(dv + row + s, total.to(dv.dtype.element_ty), mask=s < L)


@triton.jit(do_not_specialize=["B"])
def _filter_kernel(dz, v, dh, L, K, n, B, D, BLOCK: tl.constexpr, R: tl.constexpr):
    block, d = tl.program_id(0), tl.program_id(1)
    k = block * BLOCK + tl.arange(0, BLOCK)
    out = dh + d.to(tl.int64) * K + k
    total = tl.load(out, mask=k < K, other=0.0).to(tl.float32)
    for b in range(B):
        row = (tl.cast(b, tl.int64) * D + d) * L
        for r in tl.static_range(R):
            s = n + r - k
            value = tl.load(v + row + s, mask=(s >= 0) & (k < K), other=0.0).to(tl.float32)
            total += value * tl.load(dz + row + n + r).to(tl.float32)
    tl.store(out, total.to(dh.dtype.element_ty), mask=k < K)


def tail_forward_(v: Tensor, h: Tensor, z: Tensor, n: int) -> None:
    """Write z[..., n:] of the convolution of v (B, D, L) with h (D, K)."""
    (B, D, L), K, R = v.shape, h.shape[1], v.shape[-1] - n
    v, h = v.contiguous(), h.contiguous()
    blocks = triton.cdiv(L, _BLOCK)
    part = torch.empty(blocks, B, D, R, dtype=torch.float32, device=v.device)
    _forward_kernel[(blocks, D, B)](v, h, part, L, K, n, D, BLOCK=_BLOCK, R=R)
    z[..., n:] = part.sum(0)


def tail_backward_(dz: Tensor, v: Tensor, h: Tensor, dv: Tensor, dh: Tensor, n: int) -> None:
    """Add the contribution of the outputs from n on to dv (B, D, L) and dh (D, K), in place."""
    (B, D, L), K, R = v.shape, h.shape[1], v.shape[-1] - n
    dz, v, h = dz.contiguous(), v.contiguous(), h.contiguous()
    _input_kernel[(triton.cdiv(L, _BLOCK), D, B)](dz, h, dv, L, K, n, D, BLOCK=_BLOCK, R=R)
    _filter_kernel[(triton.cdiv(K, _SUM_BLOCK), D)](
        dz, v, dh, L, K, n, B, D, BLOCK=_SUM_BLOCK, R=R
    )  # fmt: skip
