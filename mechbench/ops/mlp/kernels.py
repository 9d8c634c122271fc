"""Kernels of `mechbench.ops.mlp`: the hidden units never reach memory.

A program keeps all weights in shared memory and walks over tiles of tokens. The backward computes
the hidden units again, as (hidden units, tokens), so that both products for the gradients of the
weights take their first factor from registers, and sums those gradients in registers over all of
its tokens; `summed` adds the programs' sums.

x and grad are a tile of u and of dy; a and c a chunk of hidden units' rows of W_up and columns of
W_down, b its biases; h and g its values before the activation and after it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import block
from mechbench.ops.kernels.sums import summed
from mechbench.ops.triton import interpreted

_FORWARD = 128, 64, 264  # tokens of a tile, hidden units of a chunk, programs: two fit on an H100's
_BACKWARD = 64, 128, 132  # multiprocessor, one fits


@triton.jit
def _tail(h):
    """Return the share of the normal distribution beyond |h|, and exp(-h^2 / 2).

    Their ratio is smooth, here a polynomial fitted to it: the share is off by at most 7e-6, as is
    GELU, of which the half types keep 3 digits. The error function takes twice the instructions.
    """
    t = tl.minimum(tl.abs(h), 10.0) * 0.8493218  # h^2 / 2 = t^2 log(2)
    p = t * 4.9577e-05 - 0.000906847
    p = p * t + 0.00711241
    p = p * t - 0.0320252
    p = p * t + 0.0947933
    p = p * t - 0.203531
    p = p * t + 0.342869
    p = p * t - 0.469326
    p = p * t + 0.499993
    bell = tl.exp2(-t * t)
    return p * bell, bell


@triton.jit
def _gelu(h):
    beyond, _ = _tail(h)
    return tl.maximum(h, 0.0) - tl.abs(h) * beyond


@triton.jit
def _gelu_and_slope(h):
    beyond, bell = _tail(h)
    slope = tl.where(h < 0, beyond, 1 - beyond) + h * 0.3989423 * bell
    return tl.maximum(h, 0.0) - tl.abs(h) * beyond, slope


@triton.jit
def _load(matrix, row, M, column, N, HALF: tl.constexpr, KIND: tl.constexpr):
    """Load rows and columns of a matrix (M, N) in the type of a product's factors."""
    mask = (row < M)[:, None] & (column < N)[None, :]
    x = tl.load(matrix + row[:, None] * N + column[None, :], mask=mask, other=0.0)
    return x.to(HALF).to(KIND)


@triton.jit
def _weights(
    up, down, H, D, CHUNK: tl.constexpr,
    HALF: tl.constexpr, KIND: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    unit, column = CHUNK * BH + tl.arange(0, BH), tl.arange(0, BD)
    a = _load(up, unit, H, column, D, HALF, KIND)
    return a, _load(down, column, D, unit, H, HALF, KIND)


@triton.jit
def _bias(bias, H, CHUNK: tl.constexpr, BH: tl.constexpr):
    unit = CHUNK * BH + tl.arange(0, BH)
    return tl.load(bias + unit, mask=unit < H, other=0.0).to(tl.float32)


@triton.jit
def _keep(low_up, low_down, a, c, H, D, CHUNK: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr):
    """Store a chunk's weights in the half type: the backward takes them as they are."""
    unit, column = CHUNK * BH + tl.arange(0, BH), tl.arange(0, BD)
    mask = (unit < H)[:, None] & (column < D)[None, :]
    tl.store(low_up + unit[:, None] * D + column[None, :], a.to(low_up.dtype.element_ty), mask=mask)
    mask = (column < D)[:, None] & (unit < H)[None, :]
    at = low_down + column[:, None] * H + unit[None, :]
    tl.store(at, c.to(low_down.dtype.element_ty), mask=mask)


@triton.jit
def _chunk(
    x, a, up_bias, c, y, H, CHUNK: tl.constexpr,
    HALF: tl.constexpr, KIND: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Add to y what a chunk of hidden units gives."""
    b = _bias(up_bias, H, CHUNK, BH)  # read again for every tile: it would take many registers
    h = tl.dot(x, tl.trans(a)) + b[None, :]
    return tl.dot(_gelu(h).to(HALF).to(KIND), tl.trans(c), y)


@triton.jit(do_not_specialize=["N"])
def _forward_kernel(
    u, up, up_bias, down, down_bias, y, low_up, low_down, N, D, H,
    HALF: tl.constexpr, KIND: tl.constexpr, CHUNKS: tl.constexpr,
    ROWS: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BD)
    first = tl.program_id(0) == 0
    a0, c0 = _weights(up, down, H, D, 0, HALF, KIND, BH, BD)
    if first:
        _keep(low_up, low_down, a0, c0, H, D, 0, BH, BD)
    if CHUNKS > 1:
        a1, c1 = _weights(up, down, H, D, 1, HALF, KIND, BH, BD)
        if first:
            _keep(low_up, low_down, a1, c1, H, D, 1, BH, BD)
    if CHUNKS > 2:
        a2, c2 = _weights(up, down, H, D, 2, HALF, KIND, BH, BD)
        if first:
            _keep(low_up, low_down, a2, c2, H, D, 2, BH, BD)
    if CHUNKS > 3:
        a3, c3 = _weights(up, down, H, D, 3, HALF, KIND, BH, BD)
        if first:
            _keep(low_up, low_down, a3, c3, H, D, 3, BH, BD)
    last = tl.load(down_bias + column, mask=column < D, other=0.0).to(tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        x = _load(u, row, N, column, D, HALF, KIND)
        total = tl.zeros((ROWS, BD), tl.float32) + last[None, :]
        total = _chunk(x, a0, up_bias, c0, total, H, 0, HALF, KIND, BH)
        if CHUNKS > 1:
            total = _chunk(x, a1, up_bias, c1, total, H, 1, HALF, KIND, BH)
        if CHUNKS > 2:
            total = _chunk(x, a2, up_bias, c2, total, H, 2, HALF, KIND, BH)
        if CHUNKS > 3:
            total = _chunk(x, a3, up_bias, c3, total, H, 3, HALF, KIND, BH)
        mask = (row < N)[:, None] & (column < D)[None, :]
        at = y + row[:, None] * D + column[None, :]
        tl.store(at, total.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _chunk_back(x, grad, a, b, c, da, db, dc, HALF: tl.constexpr, KIND: tl.constexpr):
    """Return a chunk's part of the gradient of x, transposed, and the others' with it added.

    Those of a, b and the transpose of c.
    """
    g, slope = _gelu_and_slope(tl.dot(a, tl.trans(x)) + b[:, None])
    dc = tl.dot(g.to(HALF).to(KIND), grad, dc)
    dh = tl.dot(tl.trans(c), tl.trans(grad)) * slope
    db += tl.sum(dh, 1)
    low = dh.to(HALF).to(KIND)
    da = tl.dot(low, x, da)
    return tl.dot(tl.trans(a), low), da, db, dc


@triton.jit
def _put_sums(
    part, da, db, dc, H, D, CHUNK: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    unit, column = CHUNK * BH + tl.arange(0, BH), tl.arange(0, BD)
    mask = (unit < H)[:, None] & (column < D)[None, :]
    tl.store(part + unit[:, None] * D + column[None, :], da, mask=mask)
    tl.store(part + H * D + column[None, :] * H + unit[:, None], dc, mask=mask)
    tl.store(part + 2 * H * D + unit, db, mask=unit < H)


@triton.jit(do_not_specialize=["N"])
def _backward_kernel(
    u, up, up_bias, down, dy, du, part, N, D, H,
    HALF: tl.constexpr, KIND: tl.constexpr, CHUNKS: tl.constexpr,
    ROWS: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BD)
    a0, c0 = _weights(up, down, H, D, 0, HALF, KIND, BH, BD)
    b0 = _bias(up_bias, H, 0, BH)
    da0 = tl.zeros((BH, BD), tl.float32)
    dc0 = tl.zeros((BH, BD), tl.float32)
    db0 = tl.zeros((BH,), tl.float32)
    if CHUNKS > 1:
        a1, c1 = _weights(up, down, H, D, 1, HALF, KIND, BH, BD)
        b1 = _bias(up_bias, H, 1, BH)
        da1 = tl.zeros((BH, BD), tl.float32)
        dc1 = tl.zeros((BH, BD), tl.float32)
        db1 = tl.zeros((BH,), tl.float32)
    ones = tl.full((16, ROWS), 1.0, tl.float32).to(KIND)
    dlast = tl.zeros((16, BD), tl.float32)  # 16 times the same: the fewest rows of a product
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        x = _load(u, row, N, column, D, HALF, KIND)
        grad = _load(dy, row, N, column, D, HALF, KIND)
        dlast = tl.dot(ones, grad, dlast)
        dx, da0, db0, dc0 = _chunk_back(x, grad, a0, b0, c0, da0, db0, dc0, HALF, KIND)
        if CHUNKS > 1:
            more, da1, db1, dc1 = _chunk_back(x, grad, a1, b1, c1, da1, db1, dc1, HALF, KIND)
            # Not a sum: Triton would have one product add to the other and lay both out badly.
            dx = tl.fma(dx, 1.0, more)
        mask = (row < N)[None, :] & (column < D)[:, None]
        at = du + row[None, :] * D + column[:, None]
        tl.store(at, dx.to(du.dtype.element_ty), mask=mask)
    part += tl.program_id(0).to(tl.int64) * (2 * H * D + H + D)
    _put_sums(part, da0, db0, dc0, H, D, 0, BH, BD)
    if CHUNKS > 1:
        _put_sums(part, da1, db1, dc1, H, D, 1, BH, BD)
    tl.store(part + 2 * H * D + H + column, tl.sum(dlast, 0) / 16, mask=column < D)


def _shapes(N: int, D: int, H: int, limits: tuple[int, int, int]) -> tuple[int, dict[str, int]]:
    """Return how many programs, and their tile's sizes."""
    rows, most, programs = limits
    wide = min(most, block(H))
    sizes = {"CHUNKS": triton.cdiv(H, wide), "ROWS": rows, "BH": wide, "BD": block(D)}
    return max(1, min(programs, triton.cdiv(N, rows))), sizes


def _types(dtype: torch.dtype) -> dict[str, object]:
    """Return the half type and that of a product's factors; the interpreter has no half ones."""
    half = tl.float16 if dtype == torch.float16 else tl.bfloat16
    return {"HALF": half, "KIND": tl.float32 if interpreted() else half}


def forward(
    u: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (..., D), W_up and W_down, all three in the half type `dtype`.

    Args:
        u: (..., D), contiguous.
        up: (H, D), contiguous.
        up_bias: (H,).
        down: (D, H), contiguous.
        down_bias: (D,).
        dtype: in which products take their factors.
    """
    H, D = up.shape
    N = u.numel() // D
    y = torch.empty_like(u, dtype=dtype)
    low_up, low_down = torch.empty_like(up, dtype=dtype), torch.empty_like(down, dtype=dtype)
    programs, sizes = _shapes(N, D, H, _FORWARD)
    _forward_kernel[(programs,)](
        u, up, up_bias, down, down_bias, y, low_up, low_down, N, D, H,
        **_types(dtype), **sizes, num_warps=8, num_stages=2, maxnreg=128,
    )  # fmt: skip
    return y, low_up, low_down


def backward(
    u: Tensor, low_up: Tensor, up_bias: Tensor, low_down: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, in its dtype, and of `forward`'s four parameters, float32."""
    H, D = low_up.shape
    N, size = u.numel() // D, 2 * H * D + H + D
    du = torch.empty_like(u)
    programs, sizes = _shapes(N, D, H, _BACKWARD)
    part = torch.empty(programs, size, dtype=torch.float32, device=u.device)
    _backward_kernel[(programs,)](
        u, low_up, up_bias, low_down, dy, du, part, N, D, H,
        **_types(low_up.dtype), **sizes, num_warps=8 if sizes["BH"] > 64 else 4, num_stages=2,
    )  # fmt: skip
    dup, ddown, dup_bias, ddown_bias = torch.split(summed(part), [H * D, H * D, H, D])
    return du, dup.view(H, D), dup_bias, ddown.view(D, H), ddown_bias
