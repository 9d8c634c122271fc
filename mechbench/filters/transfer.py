"""Filters given by a rational transfer function.

    H(z) = b(z) / a(z),  b = sum_{k < n} b_k z^-k,  a = 1 + sum_{k=1..n} a_k z^-k
    h = inverse FFT over P points of FFT(b) / FFT(a),  P >= max_seqlen

Source: the `TransferFunc` baseline of Poli et al. 2023, appendix A.1 (order 64, evaluated with
FFTs); Parnichkun et al. 2024 (arXiv:2405.06147), section 3: on P roots of unity the quotient gives
the first P taps of a system with the same poles, whose numerator is another linear function of b.
So no unrolling is needed and nothing blows up. They initialise a with zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_filter
from mechbench.catalogue.settings import check_options
from mechbench.ops.fft_conv.backends.torch_backend import transform_length


@register_filter("transfer", source="Parnichkun et al. 2024 (arXiv:2405.06147), section 3")
class TransferFilter(nn.Module):
    """One rational transfer function per channel.

    Args:
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        n_poles: n, order of the transfer function.

    Raises:
        ConfigError: n_poles out of range.
    """

    depends_on_max_seqlen = True  # at other roots of unity, b / a is another system

    def __init__(self, n_filters: int, d_model: int, max_seqlen: int, *, n_poles: int = 64) -> None:
        super().__init__()
        check_options(n_poles=n_poles)
        self.period = transform_length(max(max_seqlen, n_poles + 1))
        bound = n_poles**-0.5
        shape = (n_filters, d_model, n_poles)
        self.numerator = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.denominator = nn.Parameter(torch.zeros(shape))  # a_1 .. a_n
        for parameter in self.parameters():
            parameter.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]

    def forward(self, seqlen: int) -> Tensor:
        """Return the taps: (N, D, seqlen)."""
        b = torch.fft.rfft(self.numerator, self.period)
        a = 1 + torch.fft.rfft(F.pad(self.denominator, (1, 0)), self.period)
        h: Tensor = torch.fft.irfft(b / a, self.period)
        return h[..., :seqlen]
