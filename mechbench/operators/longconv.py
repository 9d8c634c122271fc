"""Long convolution with free taps, kept sparse by a soft threshold, then a GLU across channels.

    s = h * u + d u,   y = a sigmoid(g),  [a, g] = W GELU(s)
    h = sign(k) max(|k| - squash, 0)

with `expand` filters a channel, k as long as the longest input. With smooth = p > 0 each tap of k
is first averaged with the p on either side of it (zeros beyond the ends). Taps below the threshold
get no gradient.
Source: Fu et al. 2023 (arXiv:2302.06646), Squash and Smooth operators, and its released layer: two
filters a channel, threshold 3e-3, no smoothing, taps that start with a standard deviation of 2e-3
and have a learning rate of 1e-3 (as in most of its configurations) without weight decay.
`init=decay` is its other start: 2e-2 exp(-(D // 2)^(i / D) t / max_seqlen) in channel i. Deviation:
no dropout of taps (released: 0.1 to 0.3) nor of channels.
O(L log L) time, O(L D) weights.
Agrees with a direct sum over taps to 5e-16 in float64.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen, toeplitz
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import fft_conv, linear


@register_operator("longconv", source="Fu et al. 2023 (arXiv:2302.06646), Squash and Smooth")
class LongConv(nn.Module):
    """Convolution with free taps as long as the input, squashed, and a GLU.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens, and number of taps.
        expand: filters a channel.
        squash: by how much every tap is drawn towards zero.
        smooth: taps on either side with which a tap is averaged.
        init: "random" or "decay", how taps start, see above.
        filter_lr: learning rate of the taps; none: the run's own.
        backend: backend of the long convolution.

    Raises:
        ConfigError: an option out of range.
    """

    depends_on_max_seqlen = True  # a parameter a tap
    fidelity: ClassVar = (
        Fidelity(
            "Fu et al. 2023, Squash, Smooth and the released layer, tap by tap",
            2e-15,
            "no dropout of taps or channels: no operator here has any",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        expand: int = 2,
        squash: float = 3e-3,
        smooth: int = 0,
        init: Literal["random", "decay"] = "random",
        filter_lr: float | None = 1e-3,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_options(expand=expand, squash=squash, smooth=smooth, filter_lr=filter_lr)
        self.max_seqlen, self.backend, self.expand = max_seqlen, backend, expand
        self.squash, self.smooth = squash, smooth
        taps = torch.randn(expand, d_model, max_seqlen)
        if init == "decay":
            rate = max(1, d_model // 2) ** (torch.arange(d_model) / d_model)
            t = torch.arange(max_seqlen) / max_seqlen
            taps = 2e-2 * taps * torch.exp(-rate[:, None] * t)
        else:
            taps = 2e-3 * taps
        self.taps = nn.Parameter(taps.flatten(0, 1))  # (expand D, max_seqlen)
        own = {"weight_decay": 0.0} | ({} if filter_lr is None else {"lr": filter_lr})
        self.taps.optim = own  # type: ignore[attr-defined]
        self.skip = nn.Parameter(torch.randn(expand * d_model))
        self.out_proj = nn.Linear(expand * d_model, 2 * d_model)

    def filters(self, seqlen: int) -> Tensor:
        """Return the taps after smoothing and squashing: (expand D, seqlen)."""
        k = self.taps[:, : seqlen + self.smooth]
        if self.smooth:
            k = F.avg_pool1d(k, 2 * self.smooth + 1, stride=1, padding=self.smooth)
        return F.softshrink(k, self.squash)[:, :seqlen]

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        L = check_seqlen(u, self.max_seqlen)
        x = u.transpose(1, 2).repeat(1, self.expand, 1)  # (B, expand D, L)
        s = fft_conv(x, self.filters(L), self.skip, backend=self.backend)
        y: Tensor = F.glu(linear(F.gelu(s.transpose(1, 2)), self.out_proj), -1)  # (B, L, D)
        return y

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the matrices of the convolutions, s = H u for every filter, (B, E, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        H = toeplitz(self.filters(L)) + self.skip[:, None, None] * torch.eye(L, device=u.device)
        return H.expand(len(u), -1, -1, -1)
