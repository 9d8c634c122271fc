"""What stands around a convolution z = h * v: v = pre u, y = post (z + skip v), a pass each.

Inputs may lie channels first or tokens first, as linear maps leave them; v and z lie channels
first, y and what a linear map made get back lie tokens first. With g = post dy and the gradient c
that the convolution sends back, dv = c + skip g, du = pre dv, dpre = u dv, dpost = (z + skip v) dy,
and that of skip is the sum of g v.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.sums import summed

_CHANNELS, _TOKENS = 32, 64  # of a tile


@triton.jit
def _tile(L, D, TD: tl.constexpr, TL: tl.constexpr):
    """Return a program's sequence, channels and tokens, and the number of its row of tokens."""
    wide, long = tl.cdiv(D, TD), tl.cdiv(L, TL)
    row = tl.program_id(0) // wide
    d = (tl.program_id(0) % wide) * TD + tl.arange(0, TD)
    t = (row % long) * TL + tl.arange(0, TL)
    return (row // long).to(tl.int64), d, t, row


@triton.jit
def _at(x, b, d, t, sb, sd, st):
    return x + b * sb + d.to(tl.int64)[:, None] * sd + t.to(tl.int64)[None, :] * st


@triton.jit
def _loaded(x, b, d, t, sb, sd, st, mask):
    return tl.load(_at(x, b, d, t, sb, sd, st), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _stored(x, b, d, t, sb, sd, st, mask, value):
    tl.store(_at(x, b, d, t, sb, sd, st), value.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _before_kernel(
    u, pre, v, ub, ud, ut, pb, pd, pt, L, D,
    HAS_PRE: tl.constexpr, TD: tl.constexpr, TL: tl.constexpr,
):  # fmt: skip
    b, d, t, _ = _tile(L, D, TD, TL)
    mask = (d < D)[:, None] & (t < L)[None, :]
    value = _loaded(u, b, d, t, ub, ud, ut, mask)
    if HAS_PRE:
        value *= _loaded(pre, b, d, t, pb, pd, pt, mask)
    _stored(v, b, d, t, D * L, L, 1, mask, value)


@triton.jit
def _after_kernel(
    z, v, skip, post, y, qb, qd, qt, L, D,
    HAS_SKIP: tl.constexpr, HAS_POST: tl.constexpr, TD: tl.constexpr, TL: tl.constexpr,
):  # fmt: skip
    b, d, t, _ = _tile(L, D, TD, TL)
    mask = (d < D)[:, None] & (t < L)[None, :]
    value = _loaded(z, b, d, t, D * L, L, 1, mask)
    if HAS_SKIP:
        share = tl.load(skip + d, mask=d < D, other=0.0).to(tl.float32)[:, None]
        value += share * _loaded(v, b, d, t, D * L, L, 1, mask)
    if HAS_POST:
        value *= _loaded(post, b, d, t, qb, qd, qt, mask)
    _stored(y, b, d, t, D * L, 1, D, mask, value)


@triton.jit
def _after_backward_kernel(
    dy, z, v, skip, post, dz, dpost, part, yb, yd, yt, qb, qd, qt, rb, rd, rt, L, D,
    HAS_SKIP: tl.constexpr, HAS_POST: tl.constexpr, TD: tl.constexpr, TL: tl.constexpr,
):  # fmt: skip
    """`part` (rows of tiles, D) takes sums for the skip."""
    b, d, t, row = _tile(L, D, TD, TL)
    mask = (d < D)[:, None] & (t < L)[None, :]
    grad = _loaded(dy, b, d, t, yb, yd, yt, mask)
    if HAS_SKIP:
        now = _loaded(v, b, d, t, D * L, L, 1, mask)
    if HAS_POST:
        value = _loaded(z, b, d, t, D * L, L, 1, mask)
        if HAS_SKIP:
            value += tl.load(skip + d, mask=d < D, other=0.0).to(tl.float32)[:, None] * now
        _stored(dpost, b, d, t, rb, rd, rt, mask, grad * value)
        grad *= _loaded(post, b, d, t, qb, qd, qt, mask)
    if HAS_SKIP:
        tl.store(part + row.to(tl.int64) * D + d, tl.sum(grad * now, 1), mask=d < D)
    _stored(dz, b, d, t, D * L, L, 1, mask, grad)


@triton.jit
def _before_backward_kernel(
    c, dz, skip, u, pre, du, dpre,
    cb, cd, ct, ub, ud, ut, pb, pd, pt, xb, xd, xt, rb, rd, rt, L, D,
    HAS_SKIP: tl.constexpr, HAS_PRE: tl.constexpr, TD: tl.constexpr, TL: tl.constexpr,
):  # fmt: skip
    b, d, t, _ = _tile(L, D, TD, TL)
    mask = (d < D)[:, None] & (t < L)[None, :]
    grad = _loaded(c, b, d, t, cb, cd, ct, mask)
    if HAS_SKIP:
        share = tl.load(skip + d, mask=d < D, other=0.0).to(tl.float32)[:, None]
        grad += share * _loaded(dz, b, d, t, D * L, L, 1, mask)
    if HAS_PRE:
        _stored(dpre, b, d, t, rb, rd, rt, mask, grad * _loaded(u, b, d, t, ub, ud, ut, mask))
        grad *= _loaded(pre, b, d, t, pb, pd, pt, mask)
    _stored(du, b, d, t, xb, xd, xt, mask, grad)


def _tiles(L: int, D: int) -> dict[str, int]:
    return {
        "TD": min(_CHANNELS, triton.next_power_of_2(D)),
        "TL": min(_TOKENS, triton.next_power_of_2(L)),
    }


def _rows(B: int, L: int, tile: dict[str, int]) -> int:
    rows: int = B * triton.cdiv(L, tile["TL"])
    return rows


def _strides(*tensors: Tensor | None) -> list[int]:
    return [s for x in tensors for s in ((0, 0, 0) if x is None else x.stride())]


def _like(x: Tensor) -> Tensor:
    """Return an empty tensor that lies as x (B, D, L) does."""
    B, D, L = x.shape
    if x.stride(1) == 1:
        return torch.empty(B, L, D, device=x.device, dtype=x.dtype).transpose(1, 2)
    return torch.empty(B, D, L, device=x.device, dtype=x.dtype)


def before(u: Tensor, pre: Tensor | None) -> Tensor:
    """Return v, contiguous and in u's dtype; u itself if it is that."""
    if pre is None and u.is_contiguous():
        return u
    B, D, L = u.shape
    v = torch.empty(B, D, L, device=u.device, dtype=u.dtype)
    tile = _tiles(L, D)
    _before_kernel[(_rows(B, L, tile) * triton.cdiv(D, tile["TD"]),)](
        u, u if pre is None else pre, v, *_strides(u, pre), L, D, HAS_PRE=pre is not None, **tile
    )
    return v


def after(z: Tensor, v: Tensor, skip: Tensor | None, post: Tensor | None) -> Tensor:
    """Return y (B, D, L) in the dtype of z, tokens first in memory."""
    B, D, L = z.shape
    y = torch.empty(B, L, D, device=z.device, dtype=z.dtype).transpose(1, 2)
    tile = _tiles(L, D)
    _after_kernel[(_rows(B, L, tile) * triton.cdiv(D, tile["TD"]),)](
        z, v, v if skip is None else skip, v if post is None else post, y, *_strides(post), L, D,
        HAS_SKIP=skip is not None, HAS_POST=post is not None, **tile,
    )  # fmt: skip
    return y


def after_backward(
    dy: Tensor, z: Tensor, v: Tensor, skip: Tensor | None, post: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of z, contiguous, of the skip's share, float32, and of post."""
    B, D, L = z.shape
    dz, dpost = torch.empty_like(z), None if post is None else _like(post)
    tile = _tiles(L, D)
    rows = _rows(B, L, tile)
    part = torch.empty(rows if skip is not None else 1, D, device=z.device, dtype=torch.float32)
    _after_backward_kernel[(rows * triton.cdiv(D, tile["TD"]),)](
        dy, z, v, v if skip is None else skip, v if post is None else post,
        dz, dz if dpost is None else dpost, part, *_strides(dy, post, dpost), L, D,
        HAS_SKIP=skip is not None, HAS_POST=post is not None, **tile,
    )  # fmt: skip
    return dz, None if skip is None else summed(part), dpost


def before_backward(
    c: Tensor, dz: Tensor, skip: Tensor | None, u: Tensor, pre: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of u and pre from that of z and what the convolution sends back."""
    B, D, L = u.shape
    du, dpre = _like(u), None if pre is None else _like(pre)
    tile = _tiles(L, D)
    _before_backward_kernel[(_rows(B, L, tile) * triton.cdiv(D, tile["TD"]),)](
        c, dz, dz if skip is None else skip, u, u if pre is None else pre,
        du, du if dpre is None else dpre, *_strides(c, u, pre, du, dpre), L, D,
        HAS_SKIP=skip is not None, HAS_PRE=pre is not None, **tile,
    )  # fmt: skip
    return du, dpre
