"""Sums over the rows of a tall matrix, in float32: the gradient of a bias."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_TILE = 4096  # numbers in a tile of rows
_COLUMNS = 256  # most columns of a tile
_PROGRAMS = 512  # programs along the rows: each leaves one row of partial sums


@triton.jit(do_not_specialize=["N"])
def _kernel(x, part, N, M, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        mask = (row < N)[:, None] & (column < M)[None, :]
        at = row[:, None] * M + column[None, :]
        total += tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    out = part + tl.program_id(0).to(tl.int64) * M + column
    tl.store(out, tl.sum(total, 0), mask=column < M)


def column_sum(x: Tensor) -> Tensor:
    """Return the sums (M,) of x (N, M), float32."""
    x = x.contiguous()
    N, M = x.shape
    columns = min(_COLUMNS, triton.next_power_of_2(M))
    rows = _TILE // columns
    programs = max(1, min(_PROGRAMS, triton.cdiv(N, rows)))
    part = torch.empty(programs, M, dtype=torch.float32, device=x.device)
    _kernel[(programs, triton.cdiv(M, columns))](x, part, N, M, ROWS=rows, COLUMNS=columns)
    return summed(part)
