"""The selective state space of Mamba: a diagonal recurrence whose decay and inputs vary.

    h_t = exp(-dt_t r) h_{t-1} + dt_t x_t b_t^T,   y_t = h_t c_t

with one rate r per channel and number of its state. Source: Gu & Dao 2023 (arXiv:2312.00752),
algorithm 2. A chunk is scanned in log(chunk) whole-tensor steps (Blelloch 1990, "Prefix sums and
their applications"), chunk after chunk; the backward pass computes the states of a
chunk again from the one before it (section 3.3.2 of the paper), so that of all states only one a
chunk is kept. On a GPU fused Triton kernels do the same, where types and the state's size allow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import triton_version, unavailable
from mechbench.ops.used import noted

_NUMBERS = 2**24  # states that are held at once; beyond that, sequences come in groups
_MAX_STATE = 64  # numbers of a channel's state: the kernels hold them in registers


def selective_scan(
    x: Tensor,
    dt: Tensor,
    rate: Tensor,
    b: Tensor,
    c: Tensor,
    chunk: int = 128,
    skip: Tensor | None = None,
) -> Tensor:
    """Compute y of the module docstring: O(L E N) time, O(L E (1 + N / chunk) + chunk E N) memory.

    Args:
        x: (B, L, E).
        dt: step sizes, (B, L, E), at least 0.
        rate: r, (E, N), at least 0.
        b: (B, L, N).
        c: (B, L, N).
        chunk: positions whose states are held at once; affects only speed and memory. The kernels
            choose their own.
        skip: (E,), weights of x itself, added to y; None: none.

    Returns:
        (B, L, E) in the wider dtype of `x` and `dt`, and of `skip`; states are float32 or wider.
    """
    given = (x, dt, rate, b, c, x.new_zeros(len(rate)) if skip is None else skip)
    # Triton before 3.4 cannot compile scans of four axes.
    free = unavailable(*given) is None and triton_version() >= (3, 4)
    if noted("selective_scan", x, free and rate.shape[1] <= _MAX_STATE):
        fused: Tensor = _Fused.apply(*given)  # type: ignore[no-untyped-call]
        return fused
    with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
        out = torch.promote_types(x.dtype, dt.dtype)
        wide = torch.promote_types(out, torch.float32)
        dt, rate = dt.to(wide), rate.to(wide)
        rows = max(1, _NUMBERS // (min(chunk, x.shape[1]) * rate.numel()))
        groups = (torch.split(t, rows) for t in (dt * x.to(wide), dt, b.to(wide), c.to(wide)))
        y = torch.cat(
            [
                _SelectiveScan.apply(w, step, rate, b, c, chunk)  # type: ignore[no-untyped-call]
                for w, step, b, c in zip(*groups, strict=True)
            ]
        ).to(out)
        return y if skip is None else y + skip * x


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, rate: Tensor, b: Tensor, c: Tensor, skip: Tensor
    ) -> Tensor:
        from mechbench.ops.selective_scan.kernels import forward

        rates = rate.float().contiguous()
        y, starts = forward(x, dt, rates, b, c, skip.contiguous())
        ctx.save_for_backward(x, dt, rates, b, c, skip.contiguous(), starts)
        ctx.kinds = [v.dtype for v in (x, dt, rate, b, c, skip)]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        from mechbench.ops.selective_scan.kernels import backward

        x, dt, rate, b, c, skip, starts = ctx.saved_tensors
        grads = backward(x, dt, rate, b, c, skip, starts, dy)
        return tuple(d.to(kind) for d, kind in zip(grads, ctx.kinds, strict=True))


def selective_scan_matrix(dt: Tensor, rate: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return the matrices with which `selective_scan` maps x to y: (B, E, L, L), for a small L."""
    total = dt.cumsum(1).transpose(1, 2)  # (B, E, L)
    lag = total[..., :, None] - total[..., None, :]
    future = torch.ones(lag.shape[-2:], dtype=torch.bool, device=dt.device).triu(1)
    # Steps are at least 0, so the past has no negative lag, and no exponential overflows.
    lag = lag.masked_fill(future, 0)
    matrix = torch.zeros_like(lag)
    for n in range(rate.shape[1]):
        weights = c[:, :, None, n] * b[:, None, :, n]  # (B, L, L)
        matrix = matrix + weights[:, None] * (-lag * rate[:, n, None, None]).exp()
    return (matrix * dt.transpose(1, 2)[:, :, None]).masked_fill(future, 0)


def selective_scan_reference(x: Tensor, dt: Tensor, rate: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Compute `selective_scan` step by step: for tests."""
    state, out = x.new_zeros(len(x), *rate.shape), []
    for t in range(x.shape[1]):
        decay = (-dt[:, t, :, None] * rate).exp()  # (B, E, N)
        state = decay * state + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        out.append((state * c[:, t, None]).sum(-1))
    return torch.stack(out, 1)


class _SelectiveScan(torch.autograd.Function):
    """Takes dt x in place of x; all of one dtype."""

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, dt: Tensor, rate: Tensor, b: Tensor, c: Tensor, chunk: int
    ) -> Tensor:
        y = torch.empty_like(w)
        state = w.new_zeros(len(w), *rate.shape)  # (B, E, N)
        starts = []  # the state before each chunk
        for part in _chunks(w.shape[1], chunk):
            starts.append(state)
            _, h = _states(w[:, part], dt[:, part], rate, b[:, part], state)
            y[:, part] = (h @ c[:, part, :, None])[..., 0]
            state = h[:, -1].clone()
        ctx.save_for_backward(w, dt, rate, b, c, torch.stack(starts))
        ctx.chunk = chunk
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        w, dt, rate, b, c, starts = ctx.saved_tensors
        dw, ddt, db, dc = (torch.empty_like(x) for x in (w, dt, b, c))
        drate = torch.zeros_like(rate)
        later = torch.zeros_like(starts[0])  # (B, E, N): gradient of the state a chunk ends with
        with torch.autocast("cuda" if w.is_cuda else "cpu", enabled=False):
            for n, part in reversed(list(enumerate(_chunks(w.shape[1], ctx.chunk)))):
                a, h = _states(w[:, part], dt[:, part], rate, b[:, part], starts[n])
                dc[:, part] = (dy[:, part, None] @ h)[:, :, 0]
                dh = dy[:, part, :, None] * c[:, part, None]  # (B, C, E, N)
                dh[:, -1] += later
                decay = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1)  # to the state before
                scan_(decay, dh, backwards=True)
                dw[:, part] = (dh @ b[:, part, :, None])[..., 0]
                db[:, part] = (w[:, part, None] @ dh)[:, :, 0]
                a.mul_(dh)
                later = a[:, 0].clone()
                a[:, 1:].mul_(h[:, :-1])  # dh_t exp(..) h_{t-1}: minus the gradient of dt_t r
                a[:, 0].mul_(starts[n])
                ddt[:, part] = -(a * rate).sum(-1)
                drate -= a.mul_(dt[:, part, :, None]).sum((0, 1))
        return dw, ddt, drate, db, dc, None


def _states(w: Tensor, dt: Tensor, rate: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decays and the states of a chunk, (B, C, E, N) each, given the state before it."""
    a = (-dt[..., None] * rate).exp_()
    h = w[..., None] * b[:, :, None]
    h[:, 0].addcmul_(a[:, 0], start)
    scan_(a.clone(), h)
    return a, h


def scan_(a: Tensor, b: Tensor, *, backwards: bool = False) -> None:
    """Turn b into the states s_t = a_t s_{t-1} + b_t, s_{-1} = 0, in place; a is used up.

    Pairs at growing distances are combined, then positions between them filled: 2 log2(L) steps
    over 2 L positions in all.

    Args:
        a: (B, L, ...); a_0 has no effect.
        b: as a.
        backwards: start at the end: s_t = a_t s_{t+1} + b_t.
    """
    L, reach = b.shape[1], 1
    while 2 * reach <= L:
        now, before = _pairs(L, 2 * reach - 1, reach, backwards)
        b[:, now].addcmul_(a[:, now], b[:, before])
        a[:, now].mul_(a[:, before])
        reach *= 2
    while reach > 1:
        reach //= 2
        if 3 * reach <= L:
            now, before = _pairs(L, 3 * reach - 1, reach, backwards)
            b[:, now].addcmul_(a[:, now], b[:, before])


def _pairs(L: int, first: int, reach: int, backwards: bool) -> tuple[slice, slice]:
    """Return every (2 reach)-th position from `first` on, and those `reach` before them.

    Backwards they are counted from the end, and those come after.
    """
    if not backwards:
        return slice(first, None, 2 * reach), slice(first - reach, L - reach, 2 * reach)
    count = (L - 1 - first) // (2 * reach) + 1
    last = L - 1 - first - 2 * reach * (count - 1)
    return slice(last, L - first, 2 * reach), slice(last + reach, L - first + reach, 2 * reach)


def _chunks(L: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, L)) for start in range(0, L, chunk)]
