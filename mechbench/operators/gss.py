"""Gated state space: one state space between two dense layers, gated by a third.

    x = GELU(W_x u),  g = GELU(W_g u),  y = W_o (g W_s (h * n + d n)),  n = norm(x)

with h the impulse response of a diagonal state space. In Hyena's terms: order 1 with this filter
(Poli et al. 2023, remark 3.2).
Source: Mehta et al. 2022 (arXiv:2206.13947), figure 1, the GSS layer: D / 4 channels in the state
space, 4 D in the gate, 512 modes, simplified DSS (`mechbench.operators.dss`), which has the norm.
The authors' code is not at hand. With the weights copied and the biases of W_x, W_g and W_s at zero
it gives what the re-implementation lucidrains/gated-state-spaces-pytorch gives, to 9e-16 in
float64; lucadellalib/state-spaces-tf is alike. Deviations: both have a bias only in W_o, the figure
does not say, and here every map has one; as every operator it stands before the backbone's MLP,
where their block has none; the norm before the layer is the backbone's. variant=small has D
channels in both and S4D-Lin with 64 states without a norm, which gives 4 D^2 parameters as in the
other operators.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.filters.ssm import SSMFilter
from mechbench.operators.base import check_seqlen, toeplitz
from mechbench.operators.dss import DSS
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import fft_conv, linear


@register_operator("gss", source="Mehta et al. 2022 (arXiv:2206.13947), figure 1")
class GSS(nn.Module):
    """Gated diagonal state space.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        variant: "published" or "small", see above.
        d_ssm: channels of the state space; 0: d_model / 4 (at least one), d_model if small.
        d_gate: channels of the gate; 0: 4 d_model, d_model if small.
        d_state: complex modes, shared by all channels; if small, real dimensions of a channel's
            state, even; none: 512, 64 if small.
        backend: backend of the long convolution.

    Raises:
        ConfigError: d_state odd, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Mehta et al. 2022, layer (figure 1) and simplified DSS, recurrence",
            7e-16,
            "every linear map has a bias (in re-implementations only the last; the paper's figure "
            "does not say); stands before the backbone's MLP, as all do, where the published block "
            "has none; "
            "`variant=small` has 4 D^2 parameters and S4D-Lin",
        ),
    )

    implied: ClassVar = {"variant": "small"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        variant: Literal["published", "small"] = "published",
        d_ssm: int = 0,
        d_gate: int = 0,
        d_state: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_options(d_ssm=d_ssm, d_gate=d_gate, d_state=d_state)
        published = variant == "published"
        d_ssm = d_ssm or (max(1, d_model // 4) if published else d_model)
        d_gate = d_gate or (4 * d_model if published else d_model)
        self.max_seqlen, self.backend = max_seqlen, backend
        self.in_proj = nn.Linear(d_model, d_ssm)
        self.gate_proj = nn.Linear(d_model, d_gate)
        self.norm = nn.LayerNorm(d_ssm) if published else nn.Identity()
        self.ssm: nn.Module
        if published:
            self.ssm = DSS(d_ssm, 512 if d_state is None else d_state)
        else:
            states = 64 if d_state is None else d_state
            self.ssm = SSMFilter(1, d_ssm, max_seqlen, d_state=states)
        self.skip = nn.Parameter(torch.randn(d_ssm))
        self.ssm_proj = nn.Linear(d_ssm, d_gate)
        self.out_proj = nn.Linear(d_gate, d_model)

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        L = check_seqlen(u, self.max_seqlen)
        x = self.norm(F.gelu(self.in_proj(u))).transpose(1, 2)  # (B, d_ssm, L)
        s = fft_conv(x, self.ssm(L)[0], self.skip, backend=self.backend)
        gate = F.gelu(linear(u, self.gate_proj))  # (B, L, d_gate)
        s = linear(s.transpose(1, 2), self.ssm_proj)  # (B, L, d_gate)
        return linear(gate * s, self.out_proj)  # (B, L, D)

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the matrix of the state space, from n to what W_s takes: (B, d_ssm, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        H = toeplitz(self.ssm(L)[0]) + self.skip[:, None, None] * torch.eye(L, device=u.device)
        return H.expand(len(u), -1, -1, -1)
