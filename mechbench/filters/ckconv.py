"""Implicit filters without a window: taps as a free function of time.

    h_t = FFN(PositionalEncoding(t))

Source: Romero et al. 2021 (arXiv:2102.02611), as the `CKConv` baseline of Poli et al. 2023,
appendix A.1. Encoding, FFN, time and norm are those of `mechbench.filters.implicit`.
"""

from __future__ import annotations

from mechbench.catalogue.registry import register_filter
from mechbench.filters.implicit import FilterNorm, FilterTime, ImplicitFilter


@register_filter("ckconv", source="Romero et al. 2021 (arXiv:2102.02611)")
class CKConvFilter(ImplicitFilter):
    """A feed-forward network of time, without a window.

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        emb_dim: features of the positional encoding, odd.
        filter_width: width of the FFN.
        filter_layers: inner layers of the FFN.
        sine_freq: initial frequency of the sines.
        filter_init_std: standard deviation of the FFN's initial weights.
        filter_time: "absolute" or "relative".
        filter_norm: "none", "length" or "l1".

    Raises:
        ConfigError: emb_dim even, or an option out of range.
    """

    windowed = False

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
        filter_init_std: float = 0.02,
        filter_time: FilterTime = "relative",
        filter_norm: FilterNorm = "length",
    ) -> None:
        super().__init__(
            n_filters,
            d_model,
            max_seqlen,
            emb_dim=emb_dim,
            filter_width=filter_width,
            filter_layers=filter_layers,
            sine_freq=sine_freq,
            filter_init_std=filter_init_std,
            filter_time=filter_time,
            filter_norm=filter_norm,
        )
