"""Tiles of a chunk of tokens, for kernels that walk over a sequence with a state.

t are the chunk's positions, L the sequence's length, C the chunk's, B* a width rounded up to a
power of two.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.triton import roomy


@triton.jit
def rows(base, t, L, stride, W, BLOCK: tl.constexpr):
    """Load rows t of a matrix with W columns as float32, zeros beyond either end."""
    col = tl.arange(0, BLOCK)
    mask = (t < L)[:, None] & (col < W)[None, :]
    return tl.load(base + t[:, None] * stride + col[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def put(base, t, L, stride, W, x, BLOCK: tl.constexpr):
    """Store rows t of a matrix with W columns."""
    col = tl.arange(0, BLOCK)
    mask = (t < L)[:, None] & (col < W)[None, :]
    tl.store(base + t[:, None] * stride + col[None, :], x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def state_at(base, K, P, BK: tl.constexpr, BP: tl.constexpr):
    """Return where the entries of a state (K, P) lie, and which of them there are."""
    row, col = tl.arange(0, BK), tl.arange(0, BP)
    mask = (row < K)[:, None] & (col < P)[None, :]
    return base + row[:, None] * P + col[None, :], mask


@triton.jit
def cumulated(g, t, L, stride, HAS_G: tl.constexpr, C: tl.constexpr):
    """Return G and its last entry for the chunk at t."""
    if HAS_G:
        step = tl.load(g + t * stride, mask=t < L, other=0.0).to(tl.float32)
        return tl.cumsum(step, 0), tl.sum(step, 0)
    return tl.zeros((C,), tl.float32), 0.0


@triton.jit
def decays(fall, C: tl.constexpr):
    """Return D (C, C)."""
    i = tl.arange(0, C)
    lag = fall[:, None] - fall[None, :]
    return tl.exp(tl.where(i[:, None] >= i[None, :], lag, float("-inf")))


@triton.jit
def head_at(pointer, b, h, sb, sh):
    """Return where a head of a batch's sequence starts."""
    return pointer + b.to(tl.int64) * sb + h.to(tl.int64) * sh


def strides(*tensors: Tensor | None) -> list[int]:
    """Return the strides of batch, head and token of each."""
    return [s for x in tensors for s in ((0, 0, 0) if x is None else x.stride()[:3])]


def chunk_of(q: Tensor, v: Tensor) -> int:
    """Return C for q (.., K) and v (.., P): as long as the tiles of one fit the shared memory."""
    return 64 if max(q.shape[-1], v.shape[-1]) <= 64 and roomy(v.device) else 32


def tiles(q: Tensor, v: Tensor, chunk: int, precision: str) -> dict[str, object]:
    """Return the constants of a kernel that walks over chunks with a state (K, P)."""
    return {
        "PREC": precision, "C": chunk, "BK": block(q.shape[-1]), "BP": block(v.shape[-1]),
        "num_warps": 4, "num_stages": 1,
    }  # fmt: skip


def block(width: int) -> int:
    """Return the tile's width for so many columns: a power of two that a product can take."""
    return max(16, triton.next_power_of_2(width))
