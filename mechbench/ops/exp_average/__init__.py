"""Averages of the past whose weights are exponentials of keys, of any size.

    y_t = sum_{s <= t} exp(e_ts) v_s / sum_{s <= t} exp(e_ts)
    e_ts = k_s + near_{t-s} in the last W tokens, t - s < W; before them k_s - (t - s - W) decay

`decayed_average` has W = 1, `windowed_average` no decay. The sums are kept relative to the largest
exponent so far, as in `exp_scan`. On a GPU fused Triton kernels compute value and gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.errors import ConfigError
from mechbench.ops.backends import pick
from mechbench.ops.exp_average import fla_backend
from mechbench.ops.exp_scan import ExpSum, exp_delay, exp_merge, exp_scan, exp_term
from mechbench.ops.triton import beside, unavailable
from mechbench.ops.used import noted


def decayed_average(
    k: Tensor, v: Tensor, bonus: Tensor, decay: Tensor, backend: str = "auto"
) -> Tensor:
    """Average with weights exp(k_s - (t - 1 - s) decay), and exp(k_t + bonus) of the present.

    Args:
        k: (B, L, D) keys.
        v: (B, L, D) values.
        bonus: (D,).
        decay: (D,), 0 or more; for "fla" above 0.
        backend: "auto", "triton", "torch" or "fla": see `mechbench.ops.backends`.

    Returns:
        (B, L, D) in the dtype of `v`; computed in that of `decay`, by the kernels in float32.

    Raises:
        ConfigError: shapes that do not match, no such backend, or it cannot take the inputs.
    """
    _check(k, v, bonus[..., None], decay)
    chosen = pick(
        "exp_average",
        v,
        backend,
        triton=lambda: unavailable(k, v, bonus, decay),
        fla=lambda: fla_backend.unsupported(k, v, bonus, decay),
    )
    if chosen == "fla":
        return fla_backend.average(k, v, bonus, decay)
    if chosen == "triton":
        return _fused(k, v, bonus[:, None], decay)
    keys, values = k.to(decay.dtype), v.to(decay.dtype)
    past = exp_delay(exp_scan(keys, values, decay), 1)
    num, den, _ = exp_merge(past, exp_term(keys + bonus, values))
    return (num / den).to(v.dtype)


def windowed_average(k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Average with weights exp(k_s + bias_{t-s}) in the last W tokens, exp(k_s) before them.

    Args:
        k: (B, L, D) keys.
        v: (B, L, D) values.
        bias: (D, W); off the kernels, those of a channel may differ by at most 80.

    Returns:
        (B, L, D) in the dtype of `v`; computed in that of `bias`, by the kernels in float32.

    Raises:
        ConfigError: shapes that do not match.
    """
    _check(k, v, bias)
    if noted("exp_average", v, unavailable(k, v, bias) is None):
        return _fused(k, v, bias, None)
    keys, values = k.to(bias.dtype), v.to(bias.dtype)
    total = exp_scan(keys, values, torch.zeros_like(keys[0, 0]))
    far = exp_delay(total, bias.shape[1])
    num, den, _ = exp_merge(far, _window_sums(keys, values, bias, total[2]))
    return (num / den).to(v.dtype)


def exp_average_reference(k: Tensor, v: Tensor, near: Tensor, decay: Tensor) -> Tensor:
    """Compute y of the module docstring as a softmax in O(B L^2 D), near (D, W): for tests."""
    _check(k, v, near, decay)
    L, W = k.shape[1], near.shape[1]
    lag = torch.arange(L, device=k.device)[:, None] - torch.arange(L, device=k.device)  # (t, s)
    bias = torch.where(
        lag < W, near[:, lag.clamp(0, W - 1)], -(lag - W) * decay[:, None, None]
    )  # (D, t, s)
    exponent = (k.transpose(1, 2)[:, :, None] + bias).masked_fill(lag < 0, float("-inf"))
    return torch.einsum("bdts,bsd->btd", exponent.softmax(-1), v)


def _check(k: Tensor, v: Tensor, near: Tensor, decay: Tensor | None = None) -> None:
    D = k.shape[2:]
    fit = k.ndim == 3 and k.shape[1] > 0 and v.shape == k.shape
    fit = fit and near.ndim == 2 and near.shape[:1] == D and near.shape[1] > 0
    if not fit or (decay is not None and decay.shape != D):
        raise ConfigError(
            f"k and v have shapes {tuple(k.shape)} and {tuple(v.shape)}, the weights of lags "
            f"{tuple(near.shape)}, decays {None if decay is None else tuple(decay.shape)}: "
            "expected (B, L, D) twice, (D, W) and (D,)"
        )


def _fused(k: Tensor, v: Tensor, near: Tensor, decay: Tensor | None) -> Tensor:
    """Compute y of the module docstring by the kernels, near (D, W)."""
    out: Tensor = _Fused.apply(k, v, near, decay)  # type: ignore[no-untyped-call]
    return out


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, near: Tensor, decay: Tensor | None) -> Tensor:
        from mechbench.ops.exp_average.kernels import forward

        ctx.near, ctx.decay = (near.shape[1], near.dtype), None if decay is None else decay.dtype
        k, v = beside(k), beside(v)
        lags = near[:, : k.shape[1]].T.float().contiguous()  # (W, D)
        fall = lags.new_zeros(lags.shape[1]) if decay is None else decay.float().contiguous()
        y, lse = forward(k, v, lags, fall)
        ctx.save_for_backward(k, v, lags, fall, y, lse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mechbench.ops.exp_average.kernels import backward

        k, v, lags, fall, y, lse = ctx.saved_tensors
        dk, dv, d_lags, d_fall = backward(k, v, lags, fall, y, lse, beside(dy))
        window, near_dtype = ctx.near
        d_near = F.pad(d_lags.T, (0, window - len(lags))).to(near_dtype)
        return dk, dv, d_near, None if ctx.decay is None else d_fall.to(ctx.decay)


def _window_sums(k: Tensor, v: Tensor, w: Tensor, peak: Tensor) -> ExpSum:
    """Return the sums over the last `window` tokens, in the form of `mechbench.ops.exp_scan`.

    Args:
        k: (B, L, D).
        v: (B, L, D).
        w: (D, window); its values differ by at most 80, so that float32 can hold the exponentials.
        peak: (B, L, D), the largest key so far.
    """
    top = w.detach().amax(1)  # (D,)
    lags = torch.exp(w - top[:, None]).T.contiguous()  # (window, D)
    num, den = _WindowSums.apply(k, v, lags, peak.detach())  # type: ignore[no-untyped-call]
    return num, den, peak + top


class _WindowSums(torch.autograd.Function):
    """Sums of lags_j exp(k_{t-j} - peak_t), with v_{t-j} and without, in O(L D) memory.

    Written by hand because autograd would keep every lag's terms. The exponent is at most 0.
    """

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, lags: Tensor, peak: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(k, v, lags, peak)
        num, den = torch.zeros_like(v), torch.zeros_like(v)
        L = k.shape[1]
        for lag in range(min(len(lags), L)):
            term = (k[:, : L - lag] - peak[:, lag:]).exp_().mul_(lags[lag])
            den[:, lag:].add_(term)
            num[:, lag:].addcmul_(term, v[:, : L - lag])
        return num, den

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_num: Tensor, d_den: Tensor) -> tuple[Tensor | None, ...]:
        k, v, lags, peak = ctx.saved_tensors
        d_k, d_v, d_lags = torch.zeros_like(k), torch.zeros_like(v), torch.zeros_like(lags)
        L = k.shape[1]
        for lag in range(min(len(lags), L)):
            past, now = slice(0, L - lag), slice(lag, L)
            term = (k[:, past] - peak[:, now]).exp_()
            d_v[:, past].addcmul_(term * lags[lag], d_num[:, now])
            term.mul_(torch.addcmul(d_den[:, now], d_num[:, now], v[:, past]))
            d_lags[lag] = term.sum((0, 1))
            d_k[:, past].addcmul_(term, lags[lag])
        return d_k, d_v, d_lags, None
