"""What all kinds of causal softmax attention share: projections, heads, rotary positions.

Source: Vaswani et al. 2017, section 3.2.2; positions: Su et al. 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen
from mechbench.ops import linear, rotary_heads


class MultiHead(nn.Module):
    """Causal attention; a subclass says in `attend` which past positions are seen, and how.

    All kinds have the same parameters, so that the weights of one fit the others.
    """

    window: int | None = None  # how many of the last positions are seen; None: all

    def __init__(
        self, d_model: int, max_seqlen: int, *, n_heads: int = 0, rotary_base: float = 10_000.0
    ) -> None:
        super().__init__()
        check_rotary(rotary_base)
        self.n_heads = heads(d_model, n_heads, even=True)
        self.max_seqlen, self.rotary_base = max_seqlen, rotary_base
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map queries, keys and values, each (B, H, L, d), to outputs of that shape."""
        raise NotImplementedError

    def _heads(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = torch.unflatten(linear(u, self.qkv), -1, (3, self.n_heads, -1))  # (B, L, 3, H, d)
        return rotary_heads(qkv, self.rotary_base)  # (B, H, L, d) each

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        y = self.attend(*self._heads(u))  # (B, H, L, d)
        out: Tensor = linear(y.transpose(1, 2).flatten(2), self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the attention weights, (B, H, L, L)."""
        q, k, _ = self._heads(u)
        return softmax_weights(q, k, self.window)


def check_rotary(base: float) -> None:
    """Check the base of rotary positions where there must be some.

    Raises:
        ConfigError: it is not a positive number.
    """
    check_options(rotary_base=base)
    if base == 0:
        raise ConfigError(f"rotary_base is {base}: expected a positive number")


def heads(d_model: int, n_heads: int, *, even: bool = False) -> int:
    """Return the number of heads: `n_heads`, or for 0 as many as make d_head 32 (at least one).

    Raises:
        ConfigError: d_model is not a multiple of it or, with `even` (which rotary positions need),
            not an even multiple.
    """
    check_options(n_heads=n_heads)
    n_heads = n_heads or max(1, d_model // 32)
    if d_model % n_heads or (even and d_model // n_heads % 2):
        raise ConfigError(
            f"d_model {d_model} over {n_heads} heads: expected an even whole number a head"
        )
    return n_heads


def softmax_weights(q: Tensor, k: Tensor, window: int | None = None) -> Tensor:
    """Return softmax(mask(q k^T / sqrt(d))), (B, H, L, L), over the last `window` positions."""
    L = q.shape[-2]
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    t = torch.arange(L, device=q.device)
    age = t[:, None] - t
    unseen = (age < 0) if window is None else (age < 0) | (age >= window)
    weights: Tensor = scores.masked_fill(unseen, float("-inf")).softmax(-1)
    return weights
