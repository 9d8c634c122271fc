"""Hyena-LI, long implicit: q (h * (k v) + d k v) where h is a sum of real exponentials.

    h_t = sum_{n < d_state} R_n lam_n^t,   lam_n = exp(-exp(p_n)),   t = 0 .. L - 1

R and p are free, one row for every group of channels (by default one for every channel). It is a
gated linear recurrence with d_state real numbers a channel, and as long as the input. q, k, v, the
groups, the skip d and the output projection are those of `mechbench.operators.gated_conv`.
Source: Ku et al. 2025 (arXiv:2503.01868), section 2, Hyena-LI, where t counts from 1; 16
exponentials and no sharing as in the released configurations, and R and lam start like theirs: R
with a standard deviation of 0.1 / sqrt(d_state), lam_n such that it has decayed to 1 / e after 27
to 272 tokens. Deviation: their p is a sum of two trained numbers, which has the same range.
O(L log L) time, O(sqrt(L)) memory for each exponential and O(L D) for the taps.
Agrees with the recurrence, token by token, to 3e-16 in float64.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.gated_conv import GatedConv, groups


@register_operator("hyena-li", source="Ku et al. 2025 (arXiv:2503.01868), section 2, Hyena-LI")
class HyenaLI(GatedConv):
    """Gated convolution with a filter as long as the input, a sum of real exponentials.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        d_state: exponentials of a filter.
        n_groups: inner filters; 0: one a channel.
        short_filter: taps of the convolutions that make q, k and v.
        backend: backend of the inner convolution.

    Raises:
        ConfigError: d_model is not a multiple of n_groups, or an option out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Ku et al. 2025, Hyena-LI, recurrence",
            8e-16,
            "one trained number for the exponent of a decay, where the released code adds two",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        d_state: int = 16,
        n_groups: int = 0,
        short_filter: int = 3,
        backend: str = "auto",
    ) -> None:
        check_options(d_state=d_state)
        super().__init__(
            d_model,
            max_seqlen,
            n_groups=groups(d_model, n_groups, 1),
            short_filter=short_filter,
            backend=backend,
        )
        shape = (d_model // self.group_size, d_state)
        self.residue = nn.Parameter(0.1 * d_state**-0.5 * torch.randn(shape))  # R
        self.log_rate = nn.Parameter(torch.empty(shape).uniform_(0.01, 0.1).log() - 1)  # p
        for parameter in (self.residue, self.log_rate):
            parameter.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]

    def filters(self, seqlen: int) -> Tensor:
        """Return the inner filters: (G, seqlen), float32 or wider, also under autocast."""
        wide = torch.promote_types(self.residue.dtype, torch.float32)
        with torch.autocast("cuda" if self.residue.is_cuda else "cpu", enabled=False):
            rate = self.log_rate.to(wide).exp()[..., None]  # (G, N, 1)
            # t = c i + j: the sum is a product of two small matrices.
            c = math.isqrt(seqlen - 1) + 1
            rows = -(-seqlen // c)
            j = torch.arange(c, device=rate.device)
            fine = torch.exp(-rate * j)  # (G, N, c)
            coarse = self.residue.to(wide)[..., None] * torch.exp(-rate * (c * j[:rows]))
            return (coarse.transpose(-1, -2) @ fine).flatten(-2)[:, :seqlen]  # (G, seqlen)
