"""Decays inside a chunk, as products of two factors.

A chunk is halved again and again, down to blocks of 8: what the second half of a block reads from
the first decays to the block's middle and from there on, by two factors at most 1. Inside a block
of 8 the decays are taken from and to its middle too, but there one factor may be above 1: at most
2^100, because no step counts for less than 2^-25, below which what is left of a value is less than
its rounding was. Only products of pairs s > t, which are masked, can overflow there.

`falls` (C + 1, K) are a chunk's cumulated decays, log 2, before each token and at the end. `levels`
are those from FIRST on, that of blocks of 8: at level n a block has 2^(n + 1) positions.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mechbench.ops.kernels.chunks import head_at, rows

FIRST = tl.constexpr(2)


@triton.jit
def factors(falls, i, level, K, left, LATE: tl.constexpr, C: tl.constexpr, BS: tl.constexpr):
    """Return what q, a and the written are scaled by at a level: (C, BS) each.

    Those of halves that do not take part are at most 1. `falls` start at the first of BS channels,
    of which `left` there are.
    """
    cap = tl.where(level == 2, 200.0, 0.0)
    after = rows(falls, i + 1, C + 1, K, left, BS)
    middle = rows(falls, ((i >> level) | 1) << level, C + 1, K, left, BS)
    of_q = tl.exp2(tl.minimum(after - middle, cap))
    written = tl.exp2(tl.minimum(middle - after, cap))
    if LATE:
        of_a = of_q
    else:
        before = rows(falls, i, C + 1, K, left, BS)
        of_a = tl.exp2(tl.minimum(before - middle, cap))
    return of_q, of_a, written


@triton.jit
def remaining(falls, i, K, left, C: tl.constexpr, BS: tl.constexpr):
    """Return what is left at the chunk's end of what each token wrote: (C, BS)."""
    c = tl.arange(0, BS)
    end = tl.load(falls + C * K + c, mask=c < left, other=0.0)
    return tl.exp2(end[None, :] - rows(falls, i + 1, C + 1, K, left, BS))


@triton.jit
def together(i, level):
    """Return which pairs t, s of a chunk with s <= t a level computes: (C, C)."""
    apart = i[:, None] ^ i[None, :]
    least = tl.where(level == 2, 0, 1 << level)
    return (apart >= least) & (apart < (2 << level)) & (i[:, None] >= i[None, :])


@triton.jit
def sources(
    k, a, b, batch, head, t, L, column, K, kb, kh, kt, ab, ah, at, bb, bh, bt,
    DELTA: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Load BS channels of k, a and b of tokens t; from k and beta, which takes b's place."""
    left = K - column
    key = rows(head_at(k, batch, head, kb, kh) + column, t, L, kt, left, BS)
    b = head_at(b, batch, head, bb, bh)
    if DELTA:
        read = -key
        written = key * tl.load(b + t * bt, mask=t < L, other=0.0).to(tl.float32)[:, None]
    else:
        read = rows(head_at(a, batch, head, ab, ah) + column, t, L, at, left, BS)
        written = rows(b + column, t, L, bt, left, BS)
    return key, read, written
