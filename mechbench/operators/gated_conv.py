"""What the operators of StripedHyena 2 share: features, gates, and filters shared by groups.

    q, k, v = h_q * (W_q u), h_k * (W_k u), h_v * (W_v u)
    y = W_o (q (h * (k v) + d k v))

with h_q, h_k and h_v depthwise filters of a few free taps a channel, and one inner filter h for
every group of neighbouring channels, `n_groups` of them. The operators differ in how long h is and
how it is made. Projections and short filters have no bias, the output projection has one.
Source: Ku et al. 2025 (arXiv:2503.01868), section 2 (Hyena-SE, Hyena-MR, Hyena-LI). Defaults and
how weights start are those of the released code (Savanna, the configurations of Evo 2 at 7B): the
skip d, which only SE does without, is theirs, too. Deviation: they leave d uninitialised; here it
starts as in Hyena, with a standard deviation of 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen, toeplitz
from mechbench.ops import fft_conv, linear, short_conv_tokens


class GatedConv(nn.Module):
    """The formula of the module docstring; a subclass says in `filters` which taps h has.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_groups: G, inner filters.
        short_filter: taps of the convolutions that make q, k and v.
        skip: whether there is the term d k v.
        backend: backend of the inner convolution.

    Raises:
        ConfigError: d_model is not a multiple of n_groups, or an option out of range.
    """

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_groups: int,
        short_filter: int,
        skip: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_options(n_groups=n_groups, short_filter=short_filter)
        if d_model % n_groups:
            raise ConfigError(f"n_groups is {n_groups}: expected a divisor of {d_model} channels")
        self.max_seqlen, self.backend = max_seqlen, backend
        self.group_size = d_model // n_groups
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)  # q, k, v
        bound = short_filter**-0.5
        self.short_weight = nn.Parameter(
            torch.empty(3 * d_model, short_filter).uniform_(-bound, bound)
        )
        self.skip = nn.Parameter(torch.randn(d_model)) if skip else None
        self.out_proj = nn.Linear(d_model, d_model)

    def filters(self, seqlen: int) -> Tensor:
        """Return the inner filters: (G, K); taps from K on are zero, those beyond seqlen unused."""
        raise NotImplementedError

    def convolve(self, q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
        """Return q (h * (k v) + d k v), (B, D, L), from q, k and v of that shape and h (D, K)."""
        return fft_conv(v, h, self.skip, k, q, backend=self.backend)

    def taps(self, seqlen: int) -> Tensor:
        """Return the inner filter of every channel: (D, K)."""
        return self.filters(seqlen).repeat_interleave(self.group_size, 0)

    def features(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v, each (B, D, L), from u (B, L, D)."""
        p = short_conv_tokens(linear(u, self.in_proj), self.short_weight)  # (B, L, 3 D)
        q, k, v = (x.transpose(1, 2) for x in p.chunk(3, -1))
        return q, k, v

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        L = check_seqlen(u, self.max_seqlen)
        y = self.convolve(*self.features(u), self.taps(L))  # (B, D, L)
        out: Tensor = self.out_proj(y.transpose(1, 2))  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return H(u) = D_q S_h D_k with y = W_o (H(u) v), (B, D, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        q, k, _ = self.features(u)
        h = self.taps(L)[:, :L]
        S = toeplitz(nn.functional.pad(h, (0, L - h.shape[1])))  # (D, L, L)
        if self.skip is not None:
            S = S + self.skip[:, None, None] * torch.eye(L, device=u.device)
        return q[..., None] * S * k[..., None, :]


def groups(d_model: int, n_groups: int, size: int) -> int:
    """Return the number of filters: `n_groups`, or for 0 as many as give each `size` channels.

    Where that is no whole number, there are fewer and larger groups.
    """
    check_options(n_groups=n_groups)
    most = n_groups or max(1, d_model // size)
    return most if n_groups else next(g for g in range(most, 0, -1) if d_model % g == 0)
