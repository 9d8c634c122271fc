"""Kernel of `mechbench.ops.token_shift`; the gradient of u_t is dy_t's first half, dy_{t+1}'s last.

One number of u is written in two places, and its gradient read from two.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096  # numbers in a tile


@triton.jit(do_not_specialize=["N", "L"])
def _kernel(
    wide, u, N, L, D, step, BACKWARD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Store `wide` (N, 2 D) from u, whose rows are `step` apart, or u from the rows of `wide`."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (row < N)[:, None] & (column < D)[None, :]
    of_u = u + row[:, None] * step + column[None, :]
    if BACKWARD:
        of_wide = wide + row[:, None] * step + column[None, :]
        value = tl.load(of_wide, mask=mask, other=0.0).to(tl.float32)
        followed = mask & (row % L != L - 1)[:, None]
        value += tl.load(of_wide + step + D, mask=followed, other=0.0).to(tl.float32)
        place = u + row[:, None] * D + column[None, :]
        tl.store(place, value.to(u.dtype.element_ty), mask=mask)
    else:
        place = wide + row[:, None] * 2 * D + column[None, :]
        value = tl.load(of_u, mask=mask, other=0.0)
        tl.store(place, value.to(wide.dtype.element_ty), mask=mask)
        led = mask & (row % L != 0)[:, None]
        value = tl.load(of_u - step, mask=led, other=0.0)
        tl.store(place + D, value.to(wide.dtype.element_ty), mask=mask)


def _rows(x: Tensor) -> Tensor:
    """Return x (B, L, D) as (B L, D), without a copy where its rows are evenly spaced."""
    x = x.flatten(0, 1)
    return x if x.stride(1) == 1 else x.contiguous()


def _run(wide: Tensor, u: Tensor, L: int, step: int, *, back: bool) -> None:
    N, D = u.shape
    columns = min(256, triton.next_power_of_2(D))
    rows = _TILE // columns
    _kernel[(triton.cdiv(N, rows), triton.cdiv(D, columns))](
        wide, u, N, L, D, step, BACKWARD=back, ROWS=rows, COLUMNS=columns
    )


def forward(u: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute `with_earlier` in `dtype`."""
    B, L, D = u.shape
    rows = _rows(u)
    out = torch.empty(B, L, 2 * D, device=u.device, dtype=dtype)
    _run(out, rows, L, rows.stride(0), back=False)
    return out


def backward(dy: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the gradient of u from that of `with_earlier`, (B, L, 2 D)."""
    B, L, D = *dy.shape[:2], dy.shape[2] // 2
    rows = _rows(dy)
    out = torch.empty(B, L, D, device=dy.device, dtype=dtype)
    _run(rows, out.flatten(0, 1), L, rows.stride(0), back=True)
    return out
