"""Steps of tokens, of which a chunk takes some: what kernels load and store of them."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def steps_at(base, t, L, token, step, W, N: tl.constexpr, BLOCK: tl.constexpr):
    """Return where steps t of a matrix with W columns lie, and which of them there are."""
    col = tl.arange(0, BLOCK)
    mask = (t < L)[:, None] & (col < W)[None, :]
    if N == 1:
        return base + (t * token)[:, None] + col[None, :], mask
    return base + (t // N * token + t % N * step)[:, None] + col[None, :], mask


@triton.jit
def step_rows(base, t, L, token, step, W, N: tl.constexpr, BLOCK: tl.constexpr):
    """Load steps t of a matrix as float32, zeros beyond its end."""
    at, mask = steps_at(base, t, L, token, step, W, N, BLOCK)
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def put_steps(base, t, L, token, step, W, x, N: tl.constexpr, BLOCK: tl.constexpr):
    """Store steps t of a matrix."""
    at, mask = steps_at(base, t, L, token, step, W, N, BLOCK)
    tl.store(at, x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def last_rows(base, t, L, token, W, N: tl.constexpr, BLOCK: tl.constexpr):
    """Load what belongs to the last steps of tokens, zeros for the others."""
    at, mask = steps_at(base, t, L, token, 0, W, N, BLOCK)
    mask &= (t % N == N - 1)[:, None]
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def put_last(base, t, L, token, W, x, N: tl.constexpr, BLOCK: tl.constexpr):
    """Store what belongs to the last steps of tokens."""
    at, mask = steps_at(base, t, L, token, 0, W, N, BLOCK)
    mask &= (t % N == N - 1)[:, None]
    tl.store(at, x.to(base.dtype.element_ty), mask=mask)


def strides_of(*tensors: Tensor) -> list[int]:
    """Return the strides of batch, head, token and, where a token has several, step of each."""
    return [s for x in tensors for s in x.stride()[: max(3, x.ndim - 1)]]
