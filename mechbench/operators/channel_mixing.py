"""Channel mixing of RWKV-4, which a block may have in place of the backbone's MLP.

    x' = x_{t-1};  y = sigmoid(W_r (m_r x + (1 - m_r) x')) W_v relu(W_k (m_k x + (1 - m_k) x'))^2

Source: Peng et al. 2023 (arXiv:2305.13048), section 3, channel mixing; initial mixes as in the
released version 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.ops import linear


class ChannelMixing(nn.Module):
    """A token shift, and a squared ReLU of 4 D channels behind a gate.

    Args:
        d_model: D, channels.
        fall: 1 in the first layer, then towards 0: how fast the mixes rise over the channels.
    """

    def __init__(self, d_model: int, fall: float = 1.0) -> None:
        super().__init__()
        place = torch.arange(d_model) / d_model
        self.mix_k = nn.Parameter(place**fall)
        self.mix_r = nn.Parameter(place**fall)
        self.key = nn.Linear(d_model, 4 * d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        """Mix channels: (B, L, D) -> (B, L, D)."""
        before = F.pad(u, (0, 0, 1, -1))
        k = linear(before + self.mix_k * (u - before), self.key)
        r = linear(before + self.mix_r * (u - before), self.receptance)
        return torch.sigmoid(r) * linear(F.relu(k).square(), self.value)
