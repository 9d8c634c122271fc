"""Input-dependent decays: step sizes and log decays from logits.

    step = softplus(logit + bias),   log decay = -exp(log_rate) step,   one bias and rate per head

Source: Gu & Dao 2023 (arXiv:2312.00752), section 3.2, and its code for the initialisation; one rate
per head: Dao & Gu 2024 (arXiv:2405.21060), section 7; a bias per key channel of a head: Kimi Team
2025 (arXiv:2510.26692), section 4, and its code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mechbench.operators.base import set_optim
from mechbench.ops import soft_decay


class Decay(nn.Module):
    """The formula of the module docstring, without weight decay.

    Initialised as released: steps are log-uniform in [1e-3, 1e-1], rates are uniform in
    [min_rate, 16]: from 1 in Mamba-2, from 0 in the code of gated DeltaNet.
    """

    def __init__(self, n_heads: int, min_rate: float = 1.0) -> None:
        super().__init__()
        self.bias = _biases(n_heads)
        self.log_rate = _log_rates(n_heads, min_rate)
        set_optim(self, weight_decay=0.0)

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Map logits (B, H, L) to steps and log decays, (B, H, L) each, float32 or wider."""
        return soft_decay(logits, self.bias, self.log_rate)


class ChannelDecay(nn.Module):
    """The same with logits and a bias for each key channel, and one rate per head."""

    def __init__(self, n_heads: int, d_key: int) -> None:
        super().__init__()
        self.bias = _biases(n_heads, d_key)
        self.log_rate = _log_rates(n_heads, 1.0)
        set_optim(self, weight_decay=0.0)

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B, H, L, K) to log decays of that shape, float32 or wider."""
        return soft_decay(logits, self.bias, self.log_rate, steps=False)[1]


def _biases(*shape: int) -> nn.Parameter:
    """Return biases with which steps are log-uniform in [1e-3, 1e-1]."""
    steps = torch.exp(torch.empty(shape).uniform_(math.log(1e-3), math.log(1e-1)))
    return nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # softplus's inverse


def _log_rates(n_heads: int, least: float) -> nn.Parameter:
    rates = torch.empty(n_heads).uniform_(least, 16).clamp_min(1e-6)  # never exactly 0
    return nn.Parameter(rates.log())
