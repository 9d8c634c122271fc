"""Kernels of `mechbench.ops.rwkv7`: a program takes some tokens of a head at a time.

Backward, n is the norm of z xi and x' the gradient of x:

    kappa' = a written' - read',   (z xi)' = (kappa' - kappa (kappa . kappa')) / n
    a' = written' kappa + k' z alpha
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from mechbench.ops.kernels.chunks import put, rows
from mechbench.ops.kernels.sums import summed
from mechbench.ops.triton import beside

_TILE = 1024  # numbers in a tile
_PROGRAMS = 512  # programs of a head in the backward: each leaves one row of partial sums
_SPEED = tl.constexpr(-0.6065306597126334)  # -exp(-1/2)


@triton.jit
def _of_head(weights, h, d, BLOCK: tl.constexpr):
    """Load a head's row of weights as float32: (1, BLOCK)."""
    c = tl.arange(0, BLOCK)
    return tl.load(weights + h * d + c, mask=c < d, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _signals_kernel(
    z, rate, speed, remove, blend, k, read, written, log_w, zs, rs, ss, N, D, d,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    t, h = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    first = h * d
    key = rows(z + first, t, N, zs, d, BLOCK)
    a = tl.sigmoid(rows(rate + first, t, N, rs, d, BLOCK))
    put(k + first, t, N, D, d, key * (1 + (a - 1) * _of_head(blend, h, d, BLOCK)), BLOCK)
    kappa = key * _of_head(remove, h, d, BLOCK)
    kappa /= tl.maximum(tl.sqrt(tl.sum(kappa * kappa, 1)), 1e-12)[:, None]
    put(read + first, t, N, D, d, -kappa, BLOCK)
    put(written + first, t, N, D, d, kappa * a, BLOCK)
    fall = _SPEED * tl.sigmoid(rows(speed + first, t, N, ss, d, BLOCK))
    put(log_w + first, t, N, D, d, fall, BLOCK)


@triton.jit
def _signals_backward_kernel(
    z, rate, speed, remove, blend, k, read, written, log_w, dz, drate, dspeed, sums,
    zs, rs, ss, ks, ds, ws, ls, N, D, d, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """k, read, written and log_w are gradients here; `sums` (programs, 2, D)."""
    h = tl.program_id(1)
    first = h * d
    xi, alpha = _of_head(remove, h, d, BLOCK), _of_head(blend, h, d, BLOCK)
    of_xi, of_alpha = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        t = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        key = rows(z + first, t, N, zs, d, BLOCK)
        a = tl.sigmoid(rows(rate + first, t, N, rs, d, BLOCK))
        of_k = rows(k + first, t, N, ks, d, BLOCK)
        of_written = rows(written + first, t, N, ws, d, BLOCK)
        kappa = key * xi
        norm = tl.maximum(tl.sqrt(tl.sum(kappa * kappa, 1)), 1e-12)[:, None]
        kappa /= norm
        of_a = of_written * kappa + of_k * key * alpha
        put(drate + first, t, N, D, d, of_a * a * (1 - a), BLOCK)
        of_kappa = a * of_written - rows(read + first, t, N, ds, d, BLOCK)
        of_kappa = (of_kappa - kappa * tl.sum(kappa * of_kappa, 1)[:, None]) / norm
        put(dz + first, t, N, D, d, xi * of_kappa + of_k * (1 + (a - 1) * alpha), BLOCK)
        of_xi += tl.sum(key * of_kappa, 0)
        of_alpha += tl.sum(of_k * key * (a - 1), 0)
        s = tl.sigmoid(rows(speed + first, t, N, ss, d, BLOCK))
        slope = rows(log_w + first, t, N, ls, d, BLOCK) * _SPEED * s * (1 - s)
        put(dspeed + first, t, N, D, d, slope, BLOCK)
    c = tl.arange(0, BLOCK)
    place = sums + tl.program_id(0) * 2 * D + first + c
    tl.store(place, of_xi, mask=c < d)
    tl.store(place + D, of_alpha, mask=c < d)


@triton.jit
def _normed(y, t, N, ys, d, eps, BLOCK: tl.constexpr):
    """Return rows of a head with mean 0 and variance 1, 0 beyond its channels; and the scale."""
    c = tl.arange(0, BLOCK)
    x = rows(y, t, N, ys, d, BLOCK)
    x = tl.where((c < d)[None, :], x - (tl.sum(x, 1) / d)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(x * x, 1) / d + eps)[:, None]
    return x * scale, scale


@triton.jit
def _output_kernel(
    y, r, k, v, gate, bonus, weight, bias, out, ys, rs, ks, vs, gs, N, D, d, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    t, h = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    first = h * d
    x, _ = _normed(y + first, t, N, ys, d, eps, BLOCK)
    x = x * _of_head(weight, h, d, BLOCK) + _of_head(bias, h, d, BLOCK)
    now = rows(r + first, t, N, rs, d, BLOCK) * rows(k + first, t, N, ks, d, BLOCK)
    now = tl.sum(now * _of_head(bonus, h, d, BLOCK), 1)[:, None]
    x += now * rows(v + first, t, N, vs, d, BLOCK)
    put(out + first, t, N, D, d, x * rows(gate + first, t, N, gs, d, BLOCK), BLOCK)


@triton.jit
def _output_backward_kernel(
    y, r, k, v, gate, bonus, weight, bias, dout, dy, dr, dk, dv, dgate, sums,
    ys, rs, ks, vs, gs, os, N, D, d, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`sums` (programs, 3, D): of the bonus, the norm's weight and its bias."""
    h = tl.program_id(1)
    first = h * d
    rho, w = _of_head(bonus, h, d, BLOCK), _of_head(weight, h, d, BLOCK)
    shift = _of_head(bias, h, d, BLOCK)
    of_rho, of_w = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    of_shift = tl.zeros((BLOCK,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        t = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        x, scale = _normed(y + first, t, N, ys, d, eps, BLOCK)
        receptance = rows(r + first, t, N, rs, d, BLOCK)
        key, value = rows(k + first, t, N, ks, d, BLOCK), rows(v + first, t, N, vs, d, BLOCK)
        now = tl.sum(receptance * key * rho, 1)[:, None]
        grad = rows(dout + first, t, N, os, d, BLOCK)
        put(dgate + first, t, N, D, d, grad * (x * w + shift + now * value), BLOCK)
        grad *= rows(gate + first, t, N, gs, d, BLOCK)
        of_shift += tl.sum(grad, 0)
        of_w += tl.sum(grad * x, 0)
        put(dv + first, t, N, D, d, now * grad, BLOCK)
        of_now = tl.sum(grad * value, 1)[:, None]
        put(dr + first, t, N, D, d, of_now * key * rho, BLOCK)
        put(dk + first, t, N, D, d, of_now * receptance * rho, BLOCK)
        of_rho += tl.sum(of_now * receptance * key, 0)
        grad *= w
        away = tl.sum(grad, 1)[:, None] + x * tl.sum(grad * x, 1)[:, None]
        put(dy + first, t, N, D, d, scale * (grad - away / d), BLOCK)
    c = tl.arange(0, BLOCK)
    place = sums + tl.program_id(0) * 3 * D + first + c
    tl.store(place, of_rho, mask=c < d)
    tl.store(place + D, of_w, mask=c < d)
    tl.store(place + 2 * D, of_shift, mask=c < d)


def signals(
    z: Tensor, rate: Tensor, speed: Tensor, remove: Tensor, blend: Tensor, n_heads: int
) -> tuple[Tensor, ...]:
    """Compute `rwkv7_signals`."""
    flat = [_flat(x) for x in (z, rate, speed)]
    N, D = flat[0].shape
    types = z.dtype, torch.float32, torch.float32, torch.float32
    out = [torch.empty(z.shape, device=z.device, dtype=dtype) for dtype in types]
    tile = _tile(D // n_heads)
    _signals_kernel[(triton.cdiv(N, tile["ROWS"]), n_heads)](
        *flat, remove, blend, *out, *_steps(flat), N, D, D // n_heads, **tile
    )
    return tuple(_apart(x, n_heads) for x in out)


def signals_backward(
    z: Tensor,
    rate: Tensor,
    speed: Tensor,
    remove: Tensor,
    blend: Tensor,
    n_heads: int,
    grads: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Return the gradients of its arguments, but for the heads, from those of its values."""
    flat, back = [_flat(x) for x in (z, rate, speed)], [_flat(_together(x)) for x in grads]
    N, D = flat[0].shape
    tile = _tile(D // n_heads)
    programs = min(_PROGRAMS, triton.cdiv(N, tile["ROWS"]))
    out = [torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in (z, rate, speed)]
    sums = torch.empty(programs, 2, D, device=z.device, dtype=torch.float32)
    _signals_backward_kernel[(programs, n_heads)](
        *flat, remove, blend, *back, *out, sums, *_steps(flat), *_steps(back),
        N, D, D // n_heads, **tile,
    )  # fmt: skip
    of_remove, of_blend = summed(sums).unbind()
    return *out, of_remove.to(remove.dtype), of_blend.to(blend.dtype)


def output(
    y: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    bonus: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> Tensor:
    """Compute `rwkv7_output`."""
    flat = [*(_flat(_together(x)) for x in (y, r, k, v)), _flat(gate)]
    (N, D), (H, d) = flat[0].shape, bonus.shape
    out = torch.empty(gate.shape, device=gate.device, dtype=gate.dtype)
    tile = _tile(d)
    _output_kernel[(triton.cdiv(N, tile["ROWS"]), H)](
        *flat, bonus, weight, bias, out, *_steps(flat), N, D, d, eps, **tile
    )
    return out


def output_backward(
    y: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    bonus: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dout: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of its tensors from that of its value."""
    flat = [*(_flat(_together(x)) for x in (y, r, k, v)), _flat(gate)]
    (N, D), (H, d) = flat[0].shape, bonus.shape
    back = _flat(dout)
    tile = _tile(d)
    programs = min(_PROGRAMS, triton.cdiv(N, tile["ROWS"]))
    types = [x.dtype for x in (y, r, k, v, gate)]
    out = [torch.empty(gate.shape, device=y.device, dtype=dtype) for dtype in types]
    sums = torch.empty(programs, 3, D, device=y.device, dtype=torch.float32)
    _output_backward_kernel[(programs, H)](
        *flat, bonus, weight, bias, back, *out, sums, *_steps([*flat, back]), N, D, d, eps, **tile
    )
    of_bonus, of_weight, of_bias = summed(sums).unbind()
    return (
        *(_apart(x, H) for x in out[:4]),
        out[4],
        of_bonus.view(H, d).to(bonus.dtype),
        of_weight.to(weight.dtype),
        of_bias.to(bias.dtype),
    )


def _tile(d: int) -> dict[str, int]:
    width = triton.next_power_of_2(d)
    return {"ROWS": max(1, _TILE // width), "BLOCK": width}


def _together(x: Tensor) -> Tensor:
    """Return (B, H, L, d) as (B, L, D)."""
    return x.transpose(1, 2).flatten(2)


def _apart(x: Tensor, n_heads: int) -> Tensor:
    """Return (B, L, D) as (B, H, L, d)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def _flat(x: Tensor) -> Tensor:
    """Return (B, L, D) as (B L, D), without a copy where its rows are evenly spaced."""
    return beside(x.flatten(0, 1))


def _steps(tensors: Sequence[Tensor]) -> list[int]:
    return [x.stride(0) for x in tensors]
