"""Exponentially weighted sums over the past, with weights of any size.

    num_t = sum_{s <= t} exp(k_s - (t - s) w) v_s,   den_t = sum_{s <= t} exp(k_s - (t - s) w)

Both overflow where k is large and vanish where it is small, so they are stored relative to the
largest exponent so far (Milakov and Gimelshein 2018, arXiv:1805.02867, section 3). Prefix sums are
computed by halving (Blelloch 1990): O(L) work and memory in O(log L) steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.errors import ConfigError

_EMPTY = -1e30  # peak of an empty sum: finite, because differences of infinities are NaN

ExpSum = tuple[Tensor, Tensor, Tensor]
"""num exp(-peak), den exp(-peak) and peak, each (B, L, D); peak carries no gradient, so use only
what does not depend on it: num / den."""


def exp_scan(k: Tensor, v: Tensor, decay: Tensor) -> ExpSum:
    """Return the sums over past and present, in O(B L D) time and memory.

    Args:
        k: (B, L, D) exponents.
        v: (B, L, D) values.
        decay: (D,) w, how much an exponent falls with each step; 0 or more.

    Raises:
        ConfigError: shapes that do not match.
    """
    _check(k, v, decay)
    return _prefix(exp_term(k, v), decay)


def exp_scan_reference(k: Tensor, v: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Compute num and den of `exp_scan` term by term in O(B L^2 D), may overflow: for tests."""
    _check(k, v, decay)
    L = k.shape[1]
    lag = torch.arange(L, device=k.device)[:, None] - torch.arange(L, device=k.device)  # (L, L)
    weight = torch.exp(k[:, None] - lag[..., None].clamp_min(0) * decay)  # (B, t, s, D)
    weight = weight * (lag >= 0)[..., None]
    return torch.einsum("btsd,bsd->btd", weight, v), weight.sum(2)


def exp_term(k: Tensor, v: Tensor) -> ExpSum:
    """Return the sums of one term, exp(k) v and exp(k), for k and v (B, L, D)."""
    one = torch.exp(k - k.detach())  # 1, with the gradient of exp(k)
    return one * v, one, k.detach()


def exp_merge(old: ExpSum, new: ExpSum, decay: Tensor | None = None) -> ExpSum:
    """Return the sums over the terms of both, after lowering the old exponents by `decay` (D,)."""
    fall = old[2] if decay is None else old[2] - decay
    peak = torch.maximum(fall.detach(), new[2])
    a, b = torch.exp(fall - peak), torch.exp(new[2] - peak)
    return a * old[0] + b * new[0], a * old[1] + b * new[1], peak


def exp_delay(sums: ExpSum, steps: int) -> ExpSum:
    """Return the sums as they were `steps` tokens ago, empty before the start."""
    steps = min(steps, sums[0].shape[1])
    num, den, peak = (F.pad(x[:, : x.shape[1] - steps], (0, 0, steps, 0)) for x in sums)
    peak[:, :steps] = _EMPTY
    return num, den, peak


def _prefix(sums: ExpSum, decay: Tensor) -> ExpSum:
    num, den, peak = sums
    n = num.shape[1]
    if n == 1:
        return sums
    if n % 2:
        end = (0, 0, 0, 1)
        num, den, peak = F.pad(num, end), F.pad(den, end), F.pad(peak, end, value=_EMPTY)
    left = num[:, 0::2], den[:, 0::2], peak[:, 0::2]
    right = num[:, 1::2], den[:, 1::2], peak[:, 1::2]
    odd = _prefix(exp_merge(left, right, decay), 2 * decay)
    even = exp_merge(exp_delay(odd, 1), left, decay)
    both = zip(even, odd, strict=True)
    num, den, peak = (torch.stack(pair, 2).flatten(1, 2)[:, :n] for pair in both)
    return num, den, peak


def _check(k: Tensor, v: Tensor, decay: Tensor) -> None:
    if k.ndim != 3 or k.shape[1] < 1 or v.shape != k.shape or decay.shape != k.shape[2:]:
        raise ConfigError(
            f"k, v and decay have shapes {tuple(k.shape)}, {tuple(v.shape)} and "
            f"{tuple(decay.shape)}: expected (B, L, D) twice and (D,)"
        )
