"""Gated short convolution: what an operator can do that sees only the last few tokens.

    y = W_o (silu(W_g u) (h * (W_x u))),   (h * x)_t = sum_{j < short_filter} h_j x_{t-j}

with h a depthwise filter of a few free taps. It is the floor beneath the other operators: whatever
it solves asks for no memory, and after n layers it has seen the last n (short_filter - 1) tokens
before the present one.
Ours, after the gated convolution BaseConv of Arora et al. 2023 (arXiv:2312.04927), whose code with
a short filter multiplies a convolution of u by a linear map of u. Here what is convolved is
projected first, the gate passes silu and an output projection follows, as in the other operators;
the residual connection is the backbone's.
Agrees with a sum over taps to 1e-16 in float64.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen, toeplitz
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import linear, short_conv_tokens


@register_operator("conv", source="ours, after BaseConv of Arora et al. 2023 (arXiv:2312.04927)")
class Conv(nn.Module):
    """Short depthwise convolution with a silu gate.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        short_filter: taps of the convolution.

    Raises:
        ConfigError: short_filter out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "its own equation, tap by tap",
            4e-16,
            "ours, after BaseConv: projects before it convolves, silu on the gate, an output "
            "projection, as in the other operators",
        ),
    )

    def __init__(self, d_model: int, max_seqlen: int, *, short_filter: int = 4) -> None:
        super().__init__()
        check_options(short_filter=short_filter)
        self.max_seqlen = max_seqlen
        self.in_proj = nn.Linear(d_model, 2 * d_model)
        bound = short_filter**-0.5  # PyTorch's own for a depthwise convolution
        self.short_weight = nn.Parameter(torch.empty(d_model, short_filter).uniform_(-bound, bound))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        x, gate = linear(u, self.in_proj).chunk(2, -1)  # (B, L, D) each
        out: Tensor = linear(F.silu(gate) * short_conv_tokens(x, self.short_weight), self.out_proj)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the gated taps, H(u) = D_g S_h with y = W_o (H(u) x), (B, D, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        gate = F.silu(linear(u, self.in_proj).transpose(1, 2).chunk(2, 1)[1])
        taps = F.pad(self.short_weight, (0, max(0, L - self.short_weight.shape[1])))[:, :L]
        return gate[..., None] * toeplitz(taps)
