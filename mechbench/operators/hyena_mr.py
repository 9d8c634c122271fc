"""Hyena-MR, medium regularised: q (h * (k v) + d k v) with free taps under an exponential decay.

    h_t = w_t exp(-alpha_g t / 8191),   t < n_taps

w are free, one row for every group of channels, and start near zero; alpha_g is fixed, spread
logarithmically from slow_decay in the first group to fast_decay in the last. q, k, v, the groups,
the skip d and the output projection are those of `mechbench.operators.gated_conv`.
Source: Ku et al. 2025 (arXiv:2503.01868), section 2, Hyena-MR; 128 taps, 16 channels a group, 3
taps for q, k and v and the range of alpha as in the released configurations, which count decays
over their 8,192 training tokens. Deviations: so it is here at every length, and w starts at 1e-5
over the root of n_taps, not of the training length; without their kernels for tensor cores.
O(L log L) time; it sees the last n_taps + short_filter - 2 tokens before the present one.
Agrees with a direct sum over taps to 6e-16 in float64.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.gated_conv import GatedConv, groups

_SPAN = 8191  # tokens over which alpha counts: the last position of the released training length


@register_operator("hyena-mr", source="Ku et al. 2025 (arXiv:2503.01868), section 2, Hyena-MR")
class HyenaMR(GatedConv):
    """Gated convolution with an explicit filter of medium length that decays exponentially.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_taps: taps of the inner filter.
        n_groups: inner filters; 0: one for every 16 channels (at least one).
        slow_decay: alpha of the first group.
        fast_decay: alpha of the last group.
        short_filter: taps of the convolutions that make q, k and v.
        backend: backend of the inner convolution.

    Raises:
        ConfigError: d_model is not a multiple of n_groups, slow_decay above fast_decay, or an
            option out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Ku et al. 2025, Hyena-MR, tap by tap",
            2e-15,
            "decays count over 8,192 tokens whatever the trained length, so that the operator does "
            "not change with it",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_taps: int = 128,
        n_groups: int = 0,
        slow_decay: float = 1e-2,
        fast_decay: float = 1e2,
        short_filter: int = 3,
        backend: str = "auto",
    ) -> None:
        check_options(n_taps=n_taps, slow_decay=slow_decay, fast_decay=fast_decay)
        if slow_decay > fast_decay:
            raise ConfigError(
                f"slow_decay is {slow_decay}: expected at most fast_decay ({fast_decay})"
            )
        super().__init__(
            d_model,
            max_seqlen,
            n_groups=groups(d_model, n_groups, 16),
            short_filter=short_filter,
            backend=backend,
        )
        n_filters = d_model // self.group_size
        self.free = nn.Parameter(1e-5 * n_taps**-0.5 * torch.randn(n_filters, n_taps))
        self.free.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]
        ends = math.log(slow_decay), math.log(fast_decay)
        alpha = torch.linspace(*ends, n_filters, dtype=torch.float64).exp()
        t = torch.arange(n_taps, dtype=torch.float64)
        # Not stored with the weights, since the options say it. In float64, because .double()
        # could not bring lost digits back.
        self.decay: Tensor
        self.register_buffer("decay", torch.exp(-alpha[:, None] * t / _SPAN), persistent=False)

    def filters(self, seqlen: int) -> Tensor:
        """Return the inner filters: (G, n_taps), at most `seqlen` of them."""
        wide = torch.promote_types(self.free.dtype, torch.float32)
        return (self.free.to(wide) * self.decay.to(wide))[:, :seqlen]
