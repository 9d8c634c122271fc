"""Mamba: a selective state space (S6), whose step, input and output depend on the token.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T,   y_t = h_t C_t + skip x_t
    out = W_o (y silu(z))

x and z are linear in u; x then passes a short convolution and silu; B, C and a narrow dt are linear
in it; dt = softplus(W_dt dt + bias) is one step per channel; A is negative, one number per channel
and number of its state.

Source: Gu & Dao 2023 (arXiv:2312.00752), algorithm 2 and section 3.4 (block), with the
initialisation and the defaults of their code (d_state 16, expand 2, 4 taps, dt of ceil(D / 16)
numbers). As there, B is multiplied by dt, which is simpler than the zero-order hold of equation 4.
O(L expand D d_state) time, O(L D) memory, a state of expand D d_state numbers.
Agrees with the paper's recurrence to 2e-16 in float64 (docs/fidelity.md).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import linear, selective_scan, selective_scan_matrix, short_conv_tokens


@register_operator("mamba", source="Gu & Dao 2023 (arXiv:2312.00752), section 3")
class Mamba(nn.Module):
    """Selective state space (S6) with short convolution, skip and gate.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        d_state: size of a channel's state.
        expand: inner channels, in multiples of d_model.
        short_filter: taps of the short convolution on x.
        chunk: positions whose states are held at once; affects only speed and memory.

    Raises:
        ConfigError: an option out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Gu & Dao 2023, algorithm 2 and the block of section 3.4",
            5e-16,
            "stands before the backbone's MLP, as all do, where the published block has none; "
            "W_o is not scaled down by the depth of the model",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        d_state: int = 16,
        expand: int = 2,
        short_filter: int = 4,
        chunk: int = 128,
    ) -> None:
        super().__init__()
        check_options(d_state=d_state, expand=expand, short_filter=short_filter, chunk=chunk)
        self.max_seqlen, self.chunk = max_seqlen, chunk
        d_inner, dt_rank = expand * d_model, -(-d_model // 16)
        self.selected = [dt_rank, d_state, d_state]  # dt, B, C
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        bound = short_filter**-0.5
        self.short_weight = nn.Parameter(torch.empty(d_inner, short_filter).uniform_(-bound, bound))
        self.short_bias = nn.Parameter(torch.empty(d_inner).uniform_(-bound, bound))
        self.select = nn.Linear(d_inner, sum(self.selected), bias=False)
        bound = dt_rank**-0.5
        self.dt_weight = nn.Parameter(torch.empty(d_inner, dt_rank).uniform_(-bound, bound))
        steps = torch.exp(torch.empty(d_inner).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # softplus's inverse
        rates = torch.arange(1, d_state + 1, dtype=torch.get_default_dtype())
        self.log_rate = nn.Parameter(rates.log().repeat(d_inner, 1))  # A = -exp(log_rate)
        self.log_rate.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]
        self.skip = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return z, x and dt, each (B, L, E), and B and C, each (B, L, N)."""
        x, z = linear(u, self.in_proj).chunk(2, -1)
        x = short_conv_tokens(x, self.short_weight, self.short_bias, silu=True)
        dt, b, c = torch.split(linear(x, self.select), self.selected, -1)
        wide = torch.promote_types(x.dtype, torch.float32)
        dt = F.softplus(F.linear(dt, self.dt_weight).to(wide) + self.dt_bias)
        return z, x, dt, b, c

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        z, x, dt, b, c = self._signals(u)
        y = selective_scan(x, dt, self.log_rate.exp(), b, c, self.chunk, self.skip)  # (B, L, E)
        out: Tensor = linear(y.to(z.dtype) * F.silu(z), self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on x in y, before the gate, (B, E, L, L)."""
        _, _, dt, b, c = self._signals(u)
        eye = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
        H = selective_scan_matrix(dt, self.log_rate.exp(), b, c)
        return H + self.skip[:, None, None] * eye
