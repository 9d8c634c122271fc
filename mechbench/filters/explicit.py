"""Explicit filters: the first taps are free parameters, later ones are zero.

    h_t = w_t for t < n_taps, else 0

Source: the `Conv1d` baseline of Poli et al. 2023, appendix A.1 (64 taps). It is also the shift
state space of Fu et al. 2023, section 3.1, whose output matrix C holds the taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_filter
from mechbench.catalogue.settings import check_options


@register_filter("conv1d", source="Poli et al. 2023 (arXiv:2302.10866), appendix A.1")
class ExplicitFilter(nn.Module):
    """The first n_taps taps are free parameters, the others zero.

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        n_taps: free taps per channel; those beyond max_seqlen are left out.

    Raises:
        ConfigError: n_taps out of range.
    """

    depends_on_max_seqlen = True  # a filter shorter than n_taps has fewer taps

    def __init__(self, n_filters: int, d_model: int, max_seqlen: int, *, n_taps: int = 64) -> None:
        super().__init__()
        check_options(n_taps=n_taps)
        n_taps = min(n_taps, max_seqlen)
        bound = n_taps**-0.5  # PyTorch's own for a depthwise convolution
        self.taps = nn.Parameter(torch.empty(n_filters, d_model, n_taps).uniform_(-bound, bound))
        self.taps.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (N, D, seqlen)."""
        return F.pad(self.taps[..., :seqlen], (0, max(0, seqlen - self.taps.shape[-1])))
