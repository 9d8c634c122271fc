"""AFT-conv, causal: an average of the past weighted by keys and by a learned bias on recent lags.

    y_t = W_o (sigmoid(q_t) sum_{s<=t} e^{k_s + w_{t-s}} v_s / sum_{s<=t} e^{k_s + w_{t-s}})

with w_j free for j < window and 0 beyond, so that connections stay global. The channels of a head
share one key per position and one w.
Source: Zhai et al. 2021 (arXiv:2105.14103), equations 2 and 6 (AFT-conv). Deviations: sums run
over the past only; w is used as it is, without their normalisation; the sums are kept relative to
the largest exponent so far, because the largest overall would look ahead.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import exp_delay, exp_merge, exp_scan


@register_operator("aft", source="Zhai et al. 2021 (arXiv:2105.14103), equation 6, AFT-conv")
class AFT(nn.Module):
    """Attention-free transformer with a convolutional position bias.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: one per channel.
        window: lags with a learned bias; those beyond max_seqlen are left out.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Zhai et al. 2021, equations 2 and 6",
            7e-16,
            "past only; the window's weights as they are, without their normalisation",
        ),
    )

    depends_on_max_seqlen = True  # if shorter than the window, fewer lags are learned

    def __init__(
        self, d_model: int, max_seqlen: int, *, n_heads: int = 0, window: int = 32
    ) -> None:
        super().__init__()
        check_options(n_heads=n_heads, window=window)
        if n_heads and d_model % n_heads:
            raise ConfigError(f"n_heads is {n_heads}: expected 0 or a divisor of {d_model}")
        n_heads = n_heads or d_model
        self.max_seqlen, self.d_head = max_seqlen, d_model // n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, n_heads)
        self.value = nn.Linear(d_model, d_model)
        self.bias = nn.Parameter(1e-2 * torch.randn(n_heads, min(window, max_seqlen)))  # w
        self.bias.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]
        self.out_proj = nn.Linear(d_model, d_model)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v, each (B, L, D), and w (D, window); k, v and w in the bias's type."""
        k = self.key(u).to(self.bias.dtype).repeat_interleave(self.d_head, -1)
        w = self.bias.repeat_interleave(self.d_head, 0)
        return self.query(u), k, self.value(u).to(self.bias.dtype), w

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        q, k, v, w = self._signals(u)
        total = exp_scan(k, v, torch.zeros_like(k[0, 0]))
        far = exp_delay(total, w.shape[1])
        num, den, _ = exp_merge(far, _window_sums(k, v, w, total[2]))
        out: Tensor = self.out_proj(torch.sigmoid(q) * (num / den).to(q.dtype))  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the gated weights of the average: y = W_o (H(u) v), (B, D, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        q, k, _, w = self._signals(u)
        lag = torch.arange(L, device=u.device)[:, None] - torch.arange(L, device=u.device)
        bias = F.pad(w, (0, max(0, L - w.shape[1])))[:, lag.clamp_min(0)]  # (D, L, L)
        exponent = k.transpose(1, 2)[:, :, None] + bias
        weights = exponent.masked_fill(lag < 0, float("-inf")).softmax(-1)
        return torch.sigmoid(q).transpose(1, 2)[..., None] * weights


def _window_sums(k: Tensor, v: Tensor, w: Tensor, peak: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
