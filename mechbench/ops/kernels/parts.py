"""Products of float32 numbers in parts that the tensor cores take, three products for one.

Triton's own "tf32x3" waits for each of them, and looks for infinities in between.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def factor(x, row, N, column, W):
    """Load rows of x (N, W), zeros beyond."""
    mask = (row < N)[:, None] & (column < W)[None, :]
    at = row[:, None].to(tl.int64) * W + column[None, :]
    return tl.load(x + at, mask=mask, other=0.0)


@triton.jit
def transposed_factor(x, row, N, column, W):
    """Load rows of x (N, W) as columns, zeros beyond."""
    mask = (row < N)[None, :] & (column < W)[:, None]
    at = row[None, :].to(tl.int64) * W + column[:, None]
    return tl.load(x + at, mask=mask, other=0.0)


@triton.jit
def parts(x):
    """Return x rounded to ten bits behind the point, and the rest."""
    high = ((x.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def product_of_parts(a, b, high, low):
    """Return (a + b) @ (high + low), less b @ low: about float32's precision.

    Add it to a total rather than handing it the total: tensor cores cut off where they add.
    """
    total = tl.dot(b, high, input_precision="tf32")
    total = tl.dot(a, low, total, input_precision="tf32")
    return tl.dot(a, high, total, input_precision="tf32")
