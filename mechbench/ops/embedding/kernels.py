"""Kernel of `mechbench.ops.embedding`: the rows of dy that belong to a token, summed.

A program multiplies a one-hot matrix of a tile of positions with their rows of dy, tile by tile.
Half types make these products exact: 0 and 1 are, and a float32 number is split into three
bfloat16 ones. It leaves its sums for PyTorch to add, so that their order is fixed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import block
from mechbench.ops.kernels.sums import summed
from mechbench.ops.triton import interpreted

_ROWS = 64  # positions in a tile
_PROGRAMS = 264  # along the positions: two for each multiprocessor of an H100
_WIDEST = 64  # most rows of the table, and most columns, of a program


@triton.jit(do_not_specialize=["N"])
def _kernel(
    tokens, dy, part, N, V, D,
    KIND: tl.constexpr, ROWS: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    v = tl.program_id(1) * BV + tl.arange(0, BV)
    column = tl.program_id(2) * BD + tl.arange(0, BD)
    total = tl.zeros((BV, BD), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        token = tl.load(tokens + row, mask=row < N, other=-1)
        mask = (row < N)[:, None] & (column < D)[None, :]
        grad = tl.load(dy + row[:, None] * D + column[None, :], mask=mask, other=0.0)
        hit = (v[:, None] == token[None, :]).to(tl.float32).to(KIND)
        if dy.dtype.element_ty == tl.float32:  # 24 bits are three times the 8 of bfloat16
            high = grad.to(tl.bfloat16)
            rest = grad - high.to(tl.float32)
            middle = rest.to(tl.bfloat16)
            low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
            total = tl.dot(hit, high.to(KIND), total)
            total = tl.dot(hit, middle.to(KIND), total)
            total = tl.dot(hit, low.to(KIND), total)
        else:
            total = tl.dot(hit, grad.to(KIND), total)
    out = part + tl.program_id(0).to(tl.int64) * V * D + v[:, None] * D + column[None, :]
    tl.store(out, total, mask=(v < V)[:, None] & (column < D)[None, :])


def row_sums(tokens: Tensor, dy: Tensor, vocab_size: int) -> Tensor:
    """Return (V, D) float32, the sums of the rows of dy (..., D) for each of V tokens (...)."""
    tokens, dy = tokens.contiguous(), dy.contiguous()
    D, N = dy.shape[-1], tokens.numel()
    bv, bd = (min(_WIDEST, block(width)) for width in (vocab_size, D))
    programs = max(1, min(_PROGRAMS, triton.cdiv(N, _ROWS)))
    kind = tl.float16 if dy.dtype == torch.float16 else tl.bfloat16
    part = torch.empty(programs, vocab_size, D, dtype=torch.float32, device=dy.device)
    _kernel[(programs, triton.cdiv(vocab_size, bv), triton.cdiv(D, bd))](
        tokens, dy, part, N, vocab_size, D,
        KIND=tl.float32 if interpreted() else kind, ROWS=_ROWS, BV=bv, BD=bd,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return summed(part)
