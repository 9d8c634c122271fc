"""The two state spaces of H3 as released: a diagonal one and a shift, both with trained inputs.

    diagonal:  h_t = 2 Re sum_n B_n C_n dt / (1 - z_n / 2) ((1 + z_n / 2) / (1 - z_n / 2))^t
    shift:     h_t = sum_m B_m C_{m + t},   t < d_state

with z = dt A, the bilinear discretisation. A starts as S4D-Lin, B of the diagonal at 1, B of the
shift at the first unit vector, so that its taps start as C.
Source: Fu et al. 2023 (arXiv:2212.14052), section 3.1, and the code released with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.filters.ssm import SSMFilter, vandermonde
from mechbench.operators.base import set_optim


class BilinearStates(SSMFilter):
    """The diagonal state space of the module docstring, one a channel; (1, D, L) taps."""

    def __init__(self, d_model: int, max_seqlen: int, *, d_state: int) -> None:
        super().__init__(1, d_model, max_seqlen, d_state=d_state)
        real = torch.ones(1, d_model, d_state // 2)
        self.B = nn.Parameter(torch.stack([real, 0 * real], -1))
        self.B.optim = dict(self.log_dt.optim)  # type: ignore[attr-defined]

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (1, D, seqlen), float32 or wider, also under autocast."""
        with torch.autocast("cuda" if self.C.is_cuda else "cpu", enabled=False):
            A = torch.complex(-self.log_decay.exp(), self.turn)  # (1, D, modes)
            dt = self.log_dt.exp()[..., None]
            half = dt * A / 2
            weight = torch.view_as_complex(self.B) * torch.view_as_complex(self.C) * dt / (1 - half)
            return vandermonde(weight, ((1 + half) / (1 - half)).log(), seqlen)


class ShiftStates(nn.Module):
    """The shift of the module docstring; its state is the last `d_state` inputs."""

    def __init__(self, d_model: int, *, d_state: int) -> None:
        super().__init__()
        self.B = nn.Parameter(F.pad(torch.ones(d_model, 1), (0, d_state - 1)))
        bound = d_state**-0.5
        self.C = nn.Parameter(torch.empty(d_model, d_state).uniform_(-bound, bound))
        set_optim(self, weight_decay=0.0)

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (1, D, seqlen), float32 or wider, also under autocast."""
        N = self.C.shape[-1]
        with torch.autocast("cuda" if self.C.is_cuda else "cpu", enabled=False):
            product = torch.fft.rfft(self.B, n=2 * N).conj() * torch.fft.rfft(self.C, n=2 * N)
            taps = torch.fft.irfft(product, n=2 * N)[:, : min(N, seqlen)]
            return F.pad(taps, (0, seqlen - taps.shape[-1]))[None]
