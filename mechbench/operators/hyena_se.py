"""Hyena-SE, short explicit: q (h * (k v)) where h has a few free taps.

q, k, v, the groups that share an h, and the output projection are those of
`mechbench.operators.gated_conv`; there is no skip.
Source: Ku et al. 2025 (arXiv:2503.01868), section 2, Hyena-SE; 7 taps, 16 channels a group and 3
taps for q, k and v as in the released configurations. Deviation: written without their kernels for
tensor cores.
O(L n_taps D) time; it sees the last n_taps + short_filter - 2 tokens before the present one.
Agrees with a direct sum over taps to 2e-16 in float64.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.gated_conv import GatedConv, groups
from mechbench.ops import short_conv_tokens


@register_operator("hyena-se", source="Ku et al. 2025 (arXiv:2503.01868), section 2, Hyena-SE")
class HyenaSE(GatedConv):
    """Gated convolution with a short explicit filter.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_taps: taps of the inner filter; the paper trains 4 to 7.
        n_groups: inner filters; 0: one for every 16 channels (at least one).
        short_filter: taps of the convolutions that make q, k and v.

    Raises:
        ConfigError: d_model is not a multiple of n_groups, or an option out of range.
    """

    fidelity: ClassVar = (Fidelity("Ku et al. 2025, Hyena-SE, tap by tap", 6e-16),)

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_taps: int = 7,
        n_groups: int = 0,
        short_filter: int = 3,
    ) -> None:
        check_options(n_taps=n_taps)
        super().__init__(
            d_model,
            max_seqlen,
            n_groups=groups(d_model, n_groups, 16),
            short_filter=short_filter,
            skip=False,
        )
        bound = short_filter**-0.5  # as released, whatever n_taps is
        n_filters = d_model // self.group_size
        self.inner = nn.Parameter(torch.empty(n_filters, n_taps).uniform_(-bound, bound))
        self.inner.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]

    def filters(self, seqlen: int) -> Tensor:
        """Return the inner filters: (G, n_taps)."""
        return self.inner

    def convolve(self, q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
        """Return q (h * (k v)), (B, D, L), from q, k and v of that shape and h (D, n_taps)."""
        return q * short_conv_tokens((k * v).transpose(1, 2), h).transpose(1, 2)
