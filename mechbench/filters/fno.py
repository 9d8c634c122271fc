"""Filters with free values on the lowest frequencies.

    h_t = Re sum_{k < n_modes} W_k exp(2 pi i k t / P),   P = max_seqlen

Source: Li et al. 2020 (arXiv:2010.08895), section 4, as the `FNO` baseline of Poli et al. 2023,
appendix A.1 (64 modes). Deviation: the operator's convolution is causal, not circular, so the
modes are those of the filter over max_seqlen taps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_filter
from mechbench.catalogue.settings import check_options


@register_filter("fno", source="Li et al. 2020 (arXiv:2010.08895), section 4")
class FNOFilter(nn.Module):
    """Free values at the lowest frequencies.

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps; the period of the lowest mode.
        n_modes: frequencies 0, 1 .. n_modes - 1; those above half a turn per tap are left out.

    Raises:
        ConfigError: n_modes out of range.
    """

    depends_on_max_seqlen = True  # it is the period

    def __init__(self, n_filters: int, d_model: int, max_seqlen: int, *, n_modes: int = 64) -> None:
        super().__init__()
        check_options(n_modes=n_modes)
        self.max_seqlen = max_seqlen
        n_modes = min(n_modes, max_seqlen // 2 + 1)
        # Taps then have variance 1 / max_seqlen, so a full convolution keeps its input's variance.
        std = (n_modes * max_seqlen) ** -0.5
        self.spectrum = nn.Parameter(std * torch.randn(n_filters, d_model, n_modes, 2))
        self.spectrum.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (N, D, seqlen)."""
        # irfft counts every frequency twice, except 0 and, for an even length, the last one.
        n_modes, P = self.spectrum.shape[2], self.max_seqlen
        k = torch.arange(n_modes, device=self.spectrum.device)
        single = (k == 0) | (2 * k == P)
        half = torch.where(single, 1.0, 0.5).to(self.spectrum.dtype)
        W = torch.view_as_complex(self.spectrum * half[:, None])  # (N, D, n_modes)
        h: Tensor = torch.fft.irfft(W, P, norm="forward")
        return h[..., :seqlen]
