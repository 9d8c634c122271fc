"""Pieces of eight tokens, each held by one thread, for kernels that need a token's neighbours.

A thread loads and stores a piece at once, and besides it loads the two tokens before and after.
Neighbours are then a matter of names, while loads shifted by one token would each be of a single
number.

x is (PIECES, 8), before and after are (PIECES, 2): the two tokens on either side of each piece.
"""

from __future__ import annotations

import triton
import triton.language as tl

PIECE = 8  # tokens; `columns` and `piece` know it, too


@triton.jit
def times(start, FIRST: tl.constexpr, WIDTH: tl.constexpr, PIECES: tl.constexpr):
    """Return the times (PIECES, WIDTH) from FIRST on in each piece."""
    first = start + 8 * tl.arange(0, PIECES)
    return first[:, None] + (FIRST + tl.arange(0, WIDTH))[None, :]


@triton.jit
def at(row, offset, t, L, MASKED: tl.constexpr = True):
    """Return row_t + offset as float32, zero outside [0, L) unless t is known to be inside."""
    if not MASKED:
        return tl.load(row + t).to(tl.float32) + offset
    inside = (t >= 0) & (t < L)
    return tl.where(inside, tl.load(row + t, mask=inside, other=0.0).to(tl.float32) + offset, 0.0)


@triton.jit
def columns(x):
    """Return the eight columns of x (PIECES, 8)."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], 4, 2)))
    x04, x26 = tl.split(tl.reshape(even, (x.shape[0], 2, 2)))
    x15, x37 = tl.split(tl.reshape(odd, (x.shape[0], 2, 2)))
    x0, x4 = tl.split(x04)
    x2, x6 = tl.split(x26)
    x1, x5 = tl.split(x15)
    x3, x7 = tl.split(x37)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def piece(x0, x1, x2, x3, x4, x5, x6, x7):
    """Return the pieces (PIECES, 8) of these columns."""
    even = tl.join(tl.join(x0, x4), tl.join(x2, x6))
    odd = tl.join(tl.join(x1, x5), tl.join(x3, x7))
    return tl.reshape(tl.join(even, odd), (x0.shape[0], 8))


@triton.jit
def earlier(before, x):
    """Return x one token earlier and two, before (PIECES, 2) what precedes each piece."""
    x0, x1, x2, x3, x4, x5, x6, _ = columns(x)
    b0, b1 = tl.split(before)
    return piece(b1, x0, x1, x2, x3, x4, x5, x6), piece(b0, b1, x0, x1, x2, x3, x4, x5)


@triton.jit
def earlier_after(x, after):
    """Return, for the two tokens after each piece x, those one token earlier and two."""
    _, _, _, _, _, _, x6, x7 = columns(x)
    a0, _ = tl.split(after)
    return tl.join(x7, a0), tl.join(x6, x7)


@triton.jit
def correlated(x, after, a0, a1, a2):
    """Return the adjoint of the short convolution: a0 x_t + a1 x_{t+1} + a2 x_{t+2}."""
    _, x1, x2, x3, x4, x5, x6, x7 = columns(x)
    n0, n1 = tl.split(after)
    one = piece(x1, x2, x3, x4, x5, x6, x7, n0)
    return a0 * x + a1 * one + a2 * piece(x2, x3, x4, x5, x6, x7, n0, n1)
