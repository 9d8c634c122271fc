"""The sum of the partial sums that the programs of a kernel leave.

PyTorch gives a short reduction one block of threads for each few columns, and takes as long as for
a hundred times as many rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048  # numbers that a program adds at once
_ROWS, _FEW_ROWS, _WIDE = 128, 16, 4096  # rows of a tile, and of wide sums, which fill a GPU anyway


@triton.jit(do_not_specialize=["N", "M"])
def _kernel(part, out, N, M, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, N, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < N)[:, None] & (column < M)[None, :]
        at = row[:, None].to(tl.int64) * M + column[None, :]
        total += tl.load(part + at, mask=mask, other=0.0)
    tl.store(out + column, tl.sum(total, 0), mask=column < M)


def summed(part: Tensor) -> Tensor:
    """Return the sum of part (N, ...), float32 and contiguous, over its first axis."""
    out = torch.empty(part.shape[1:], dtype=torch.float32, device=part.device)
    M = out.numel()
    rows = min(_ROWS if M <= _WIDE else _FEW_ROWS, triton.next_power_of_2(len(part)))
    columns = _TILE // rows
    _kernel[(triton.cdiv(M, columns),)](part, out, len(part), M, ROWS=rows, COLUMNS=columns)
    return out
