"""Fused kernel of `mechbench.ops.rotary`: one pass in place of ten."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_TOKENS, _COLUMNS = 32, 64  # of a program; a column is a pair of features


@triton.jit
def _turn_kernel(
    x, out, rate, xb, xh, xt, xd, ob, oh, ot, L, columns, half,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    b = tl.program_id(2).to(tl.int64)
    head, i = column // half, column % half
    mask = (t < L)[:, None] & (column < columns)[None, :]
    angle = t.to(tl.float32)[:, None] * tl.load(rate + i)[None, :]
    cos, sin = tl.cos(angle), tl.sin(angle)
    start = x + b * xb + t.to(tl.int64)[:, None] * xt + (head * xh)[None, :]
    a_in = tl.load(start + (i * xd)[None, :], mask=mask, other=0.0).to(tl.float32)
    b_in = tl.load(start + ((i + half) * xd)[None, :], mask=mask, other=0.0).to(tl.float32)
    place = out + b * ob + t.to(tl.int64)[:, None] * ot + (head * oh + i)[None, :]
    kind = out.dtype.element_ty
    tl.store(place, (a_in * cos - b_in * sin).to(kind), mask=mask)
    tl.store(place + half, (a_in * sin + b_in * cos).to(kind), mask=mask)


def turn(x: Tensor, rate: Tensor, out: Tensor) -> Tensor:
    """Rotate x (B, H, L, d) into `out`, whose last stride is 1, and return it.

    Args:
        x: of any strides.
        rate: (d/2,) float32, the angle of a pair per position.
        out: of x's shape.
    """
    B, H, L, d = x.shape
    columns = H * d // 2
    tokens = min(_TOKENS, triton.next_power_of_2(L))
    width = min(_COLUMNS, triton.next_power_of_2(columns))
    _turn_kernel[(triton.cdiv(L, tokens), triton.cdiv(columns, width), B)](
        x, out, rate, *x.stride(), *out.stride()[:3], L, columns, d // 2,
        TOKENS=tokens, COLUMNS=width,
    )  # fmt: skip
    return out
