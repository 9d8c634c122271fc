"""The simplified diagonal state spaces of GSS: shared modes, time steps of one, a norm before.

    s = h * norm(x) + d norm(x),   h_t = Re sum_n C_n (exp(A_n) - 1) / A_n exp(t A_n)

with A = -exp(a) + i exp(b), one set of d_state modes for all channels, and C of each channel.
Source: Mehta et al. 2022 (arXiv:2206.13947), simplified DSS, whose full listing is their appendix
A.2. It was not at hand: kernel, norm and initial values (all standard normal, the skip d, too) are
compared with two re-implementations, see `mechbench.operators.gss`. In the terms of the DSS code
(Gupta et al. 2022, arXiv:2203.14343, ag1988/dss) it is the variant without a softmax over positions
that has exponentials of both parts of A, with the time step fixed at 1 and normal numbers where DSS
starts from the eigenvalues of HiPPO. Neither decays these parameters' weights; there
they learn at a rate of 1e-3, here at the run's own.
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
