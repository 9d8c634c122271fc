"""The simplified diagonal state spaces of GSS: shared modes, time steps of one, a norm before.

    s = h * norm(x) + d norm(x),   h_t = Re sum_n C_n (exp(A_n) - 1) / A_n exp(t A_n)

with A = -exp(a) + i exp(b), one set of d_state modes for all channels, and C of each channel.
Source: Mehta et al. 2022 (arXiv:2206.13947), section 3 and its listing of the DSS layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mechbench.filters.ssm import vandermonde
from mechbench.operators.base import set_optim


class DSS(nn.Module):
    """The kernel of the module docstring; all starts normally distributed."""

    def __init__(self, n_channels: int, d_state: int) -> None:
        super().__init__()
        self.log_decay = nn.Parameter(torch.randn(d_state))
        self.log_turn = nn.Parameter(torch.randn(d_state))
        self.C = nn.Parameter(torch.randn(n_channels, d_state, 2))
        set_optim(self, weight_decay=0.0)

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (1, channels, seqlen), float32 or wider, also under autocast."""
        with torch.autocast("cuda" if self.C.is_cuda else "cpu", enabled=False):
            A = torch.complex(-self.log_decay.exp(), self.log_turn.exp())  # (N,)
            weight = torch.view_as_complex(self.C) * (A.exp() - 1) / A  # (channels, N)
            return vandermonde(weight, A, seqlen)[None] / 2
