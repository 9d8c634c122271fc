"""AFT-conv, causal: an average of the past weighted by keys and by a learned bias on recent lags.

    y_t = W_o (sigmoid(q_t) sum_{s<=t} e^{k_s + w_{t-s}} v_s / sum_{s<=t} e^{k_s + w_{t-s}})

with w_j free for j < window and 0 beyond, so that connections stay global. The channels of a head
share one key per position and one w.
Source: Zhai et al. 2021 (arXiv:2105.14103), equations 2 and 6 (AFT-conv). Deviations: sums run
over the past only; w is used as it is, without their normalisation; the sums are kept relative to
the largest exponent so far, because the largest overall would look ahead.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import linear, windowed_average


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
        """Return q, k, v, each (B, L, D), and w (D, window)."""
        k = linear(u, self.key)
        if self.d_head > 1:  # in the bias's type, in which the gradients of a head are summed
            k = k.to(self.bias.dtype).repeat_interleave(self.d_head, -1)
        w = self.bias.repeat_interleave(self.d_head, 0)
        return linear(u, self.query), k, linear(u, self.value), w

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        q, k, v, w = self._signals(u)
        return linear(torch.sigmoid(q) * windowed_average(k, v, w), self.out_proj)  # (B, L, D)

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the gated weights of the average: y = W_o (H(u) v), (B, D, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        q, k, _, w = self._signals(u)
        lag = torch.arange(L, device=u.device)[:, None] - torch.arange(L, device=u.device)
        bias = F.pad(w, (0, max(0, L - w.shape[1])))[:, lag.clamp_min(0)]  # (D, L, L)
        exponent = k.to(w.dtype).transpose(1, 2)[:, :, None] + bias
        weights = exponent.masked_fill(lag < 0, float("-inf")).softmax(-1)
        return torch.sigmoid(q).transpose(1, 2)[..., None] * weights
