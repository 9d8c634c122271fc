"""Decays inside a chunk, as products of factors that are both at most 1.

A chunk is halved again and again: what the second half of a block reads from the first decays to
the block's middle and from there on. `falls` (C + 1, K) are a chunk's cumulated log decays, those
before each token and those at the end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mechbench.ops.kernels.chunks import head_at, rows


@triton.jit
def factors(falls, i, half, K, LATE: tl.constexpr, C: tl.constexpr, BK: tl.constexpr):
    """Return what q, a and the written are scaled by, in blocks of twice `half`: (C, BK) each.

    0 for what does not take part: the first halves do not read, nor are the second ones read.
    """
    second = ((i // half) % 2 == 1)[:, None]
    after = rows(falls, i + 1, C + 1, K, K, BK)
    middle = rows(falls, i // (2 * half) * (2 * half) + half, C + 1, K, K, BK)
    of_q = tl.exp(tl.where(second, after - middle, float("-inf")))
    written = tl.exp(tl.where(second, float("-inf"), middle - after))
    if LATE:
        of_a = of_q
    else:
        before = rows(falls, i, C + 1, K, K, BK)
        of_a = tl.exp(tl.where(second, before - middle, float("-inf")))
    return of_q, of_a, written


@triton.jit
def together(i, half):
    """Return which pairs of a chunk share a block of twice `half`: (C, C)."""
    block = i // (2 * half)
    return block[:, None] == block[None, :]


@triton.jit
def sources(
    k, a, b, row, H, t, L, K, kb, kh, kt, ab, ah, at, bb, bh, bt,
    DELTA: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Load k, a and b of tokens t, (C, BK) each; from k and beta, which takes b's place."""
    batch, head = row // H, row % H
    key = rows(head_at(k, batch, head, kb, kh), t, L, kt, K, BK)
    b = head_at(b, batch, head, bb, bh)
    if DELTA:
        read = -key
        written = key * tl.load(b + t * bt, mask=t < L, other=0.0).to(tl.float32)[:, None]
    else:
        read = rows(head_at(a, batch, head, ab, ah), t, L, at, K, BK)
        written = rows(b, t, L, bt, K, BK)
    return key, read, written
