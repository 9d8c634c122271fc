"""Kernel of `mechbench.ops.split_linear`: slices side by side in one matrix, whatever strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS, _ROWS = 64, 64  # of a tile
_AT_ONCE = 4  # slices that a launch takes


@triton.jit
def _with_slice(value, x, sb, st, sc, place, W, b, t, col, first, some, COLUMNS: tl.constexpr):
    """Return value with the slice whose W columns begin at `place`, where the tile has some."""
    if (first < place + W) & (first + COLUMNS > place):
        column = col - place
        at = (b * sb + t * st)[:, None] + (column * sc)[None, :]
        mask = some[:, None] & ((column >= 0) & (column < W))[None, :]
        value += tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    return value


@triton.jit
def _kernel(
    x0, x1, x2, x3, out, b0, t0, c0, b1, t1, c1, b2, t2, c2, b3, t3, c3,
    p0, p1, p2, p3, w0, w1, w2, w3, start, stop, N, L, M,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store columns `start` to `stop` of out (N, M)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = start + tl.program_id(1) * COLUMNS
    col = first + tl.arange(0, COLUMNS)
    some, b, t = row < N, row // L, row % L
    value = tl.zeros((ROWS, COLUMNS), tl.float32)
    value = _with_slice(value, x0, b0, t0, c0, p0, w0, b, t, col, first, some, COLUMNS)
    value = _with_slice(value, x1, b1, t1, c1, p1, w1, b, t, col, first, some, COLUMNS)
    value = _with_slice(value, x2, b2, t2, c2, p2, w2, b, t, col, first, some, COLUMNS)
    value = _with_slice(value, x3, b3, t3, c3, p3, w3, b, t, col, first, some, COLUMNS)
    mask = some[:, None] & (col < stop)[None, :]
    tl.store(out + row[:, None] * M + col[None, :], value.to(out.dtype.element_ty), mask=mask)


def joined(slices: Sequence[Tensor], width: int, dtype: torch.dtype) -> Tensor:
    """Return slices (B, L, w), side by side and zeros behind them, as (B L, width)."""
    B, L, _ = slices[0].shape
    out = torch.empty(B * L, width, device=slices[0].device, dtype=dtype)
    parts, place = [], 0
    for x in slices:
        if x.shape[-1]:
            parts.append((x, place))
        place += x.shape[-1]
    for i in range(0, len(parts), _AT_ONCE):
        now = parts[i : i + _AT_ONCE]
        later = parts[i + _AT_ONCE : i + _AT_ONCE + 1]
        start, stop = now[0][1], later[0][1] if later else width
        widths = [x.shape[-1] for x, _ in now] + [0] * (_AT_ONCE - len(now))
        now += [(now[0][0], stop)] * (_AT_ONCE - len(now))
        _kernel[(triton.cdiv(B * L, _ROWS), triton.cdiv(stop - start, _COLUMNS))](
            *(x for x, _ in now), out, *(s for x, _ in now for s in x.stride()),
            *(at for _, at in now), *widths, start, stop, B * L, L, width,
            ROWS=_ROWS, COLUMNS=_COLUMNS,
        )  # fmt: skip
    return out
