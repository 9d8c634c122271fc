"""S4D: one diagonal state space per channel, then a gated linear unit across channels.

    s = h * u + d u,   y = a sigmoid(g),  [a, g] = W GELU(s)

with h the impulse response of x' = A x + B u, y = C x (`mechbench.filters.ssm`).
Source: Gu et al. 2022 (arXiv:2206.11893), section 3 and S4D-Lin; the GELU, the GLU and the skip d
are those of the S4 layer (Gu et al. 2021, arXiv:2111.00396). Deviation: no dropout.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.filters.ssm import SSMFilter
from mechbench.operators.base import check_seqlen, toeplitz
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import fft_conv, linear


@register_operator("s4d", source="Gu et al. 2022 (arXiv:2206.11893), section 3, S4D-Lin")
class S4D(nn.Module):
    """Diagonal state space with S4D-Lin initialisation and a GLU.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        d_state: real dimensions of a channel's state; even.
        dt_min: smallest initial time step.
        dt_max: largest initial time step.
        backend: backend of the long convolution.

    Raises:
        ConfigError: d_state odd or below 2, or dt_min not between 0 and dt_max.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity("Gu et al. 2022, recurrence", 8e-15, "no dropout"),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        d_state: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.max_seqlen, self.backend = max_seqlen, backend
        self.ssm = SSMFilter(1, d_model, max_seqlen, d_state=d_state, dt_min=dt_min, dt_max=dt_max)
        self.skip = nn.Parameter(torch.randn(d_model))
        self.out_proj = nn.Linear(d_model, 2 * d_model)

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        L = check_seqlen(u, self.max_seqlen)
        h = self.ssm(L)[0]  # (D, L)
        s = fft_conv(u.transpose(1, 2), h, self.skip, backend=self.backend)  # (B, D, L)
        y: Tensor = F.glu(linear(F.gelu(s.transpose(1, 2)), self.out_proj), -1)  # (B, L, D)
        return y

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the matrix of the state space, before the GELU: s = H u, (B, D, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        H = toeplitz(self.ssm(L)[0]) + self.skip[:, None, None] * torch.eye(L, device=u.device)
        return H.expand(len(u), -1, -1, -1)
