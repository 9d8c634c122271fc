"""The implicit filters of the authors' released code, for weights that were trained with it.

    h_t = (exp(-alpha_c t / (P - 1)) + shift) FFN([t / (P - 1), cos w_f, -sin w_f])

with w_f = 2 pi f t / P for each band f. P is max_seqlen, and c = d N + n is the channel of filter
n: the rates alpha are spread over all N D channels. One set of sine frequencies serves all layers
of the FFN, and taps are not normalised.
Source: Poli et al. 2023, section 3.3, and the code released with it. Deviation: there the encoding
is a parameter, trained at a rate of 1e-5; here it is fixed.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_filter
from mechbench.filters.implicit import (
    Sine,
    check_network,
    encoding_bands,
    start_linear,
    through,
    window_rates,
)
from mechbench.ops.window import windowed_product


@register_filter("released", source="Poli et al. 2023 (arXiv:2302.10866), released code")
class ReleasedFilter(nn.Module):
    """The FFN of absolute time under a window, exactly as released.

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: P, longest filter, in taps.
        emb_dim: features of the positional encoding, odd.
        filter_width: width of the FFN.
        filter_layers: inner layers of the FFN.
        sine_freq: initial frequency of the sines.
        fast_decay: the fastest channel decays to 1e-2 at this fraction of the length.
        slow_decay: the same for the slowest channel.
        window_shift: constant added to the window.
        filter_init_std: standard deviation of the FFN's initial weights.

    Raises:
        ConfigError: emb_dim even, or an option out of range.
    """

    depends_on_max_seqlen = True

    def __init__(
        self,
        n_filters: int,
        d_model: int,
        max_seqlen: int,
        *,
        emb_dim: int = 5,
        filter_width: int = 64,
        filter_layers: int = 2,
        sine_freq: float = 10.0,
        fast_decay: float = 0.3,
        slow_decay: float = 1.5,
        window_shift: float = 0.0,
        filter_init_std: float = 0.02,
    ) -> None:
        super().__init__()
        check_network(
            emb_dim,
            filter_width=filter_width,
            filter_layers=filter_layers,
            sine_freq=sine_freq,
            fast_decay=fast_decay,
            slow_decay=slow_decay,
            window_shift=window_shift,
            filter_init_std=filter_init_std,
        )
        self.n_filters, self.d_model, self.max_seqlen = n_filters, d_model, max_seqlen
        self.shift = window_shift
        widths = [emb_dim] + (filter_layers + 1) * [filter_width]
        self.inner = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(widths))
        self.sine = Sine(filter_width, sine_freq)
        self.last = nn.Linear(filter_width, n_filters * d_model, bias=False)
        start_linear((*self.inner, self.last), filter_init_std)
        self.bands: Tensor
        self.alpha: Tensor
        self.register_buffer("bands", encoding_bands(emb_dim, torch.float64), persistent=False)
        alpha = window_rates(slow_decay, fast_decay, n_filters * d_model, torch.float64)
        self.register_buffer("alpha", alpha, persistent=False)

    def encoding(self, seqlen: int) -> Tensor:
        """Return the first positions' features: (seqlen, emb_dim)."""
        weight = self.last.weight
        t = torch.arange(seqlen, device=weight.device, dtype=weight.dtype)[:, None]
        phase = 2 * math.pi * t / self.max_seqlen * self.bands.to(weight.dtype)  # (L, bands)
        return torch.cat([t / max(1, self.max_seqlen - 1), phase.cos(), -phase.sin()], 1)

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (N, D, seqlen), float32 or wider, also under autocast."""
        weight = self.last.weight
        with torch.autocast("cuda" if weight.is_cuda else "cpu", enabled=False):
            x = self.encoding(seqlen)
            for layer in self.inner:
                x = through((layer, self.sine), x)  # (L, width)
            step = 1 / max(1, self.max_seqlen - 1)
            h = windowed_product(weight, x, self.alpha.to(weight.dtype), step, self.shift)
            h = h.view(self.d_model, self.n_filters, seqlen)
            return h.transpose(0, 1).contiguous()  # (N, D, L)
