"""Based's linear attention: the softmax's exponential up to its second-order term.

    y_t = W_o sum_{s <= t} a(q_t, k_s) v_s / sum_{s <= t} a(q_t, k_s)
    a(q, k) = 1 + z + z^2 / 2 = phi(q) . phi(k),   z = q . k / sqrt(d_feature)

q and k are narrow. phi(x) holds 1, the numbers of x and their products in pairs, weighted so that
the equation holds; a is at least 1/2, so the sum never vanishes.

Source: Arora et al. 2024 (arXiv:2402.18668), Taylor linear attention. O(L D d_feature^2) time,
O(L (D + n_heads d_feature^2)) memory, which the kernels of `taylor_attention` bring down to about
O(L D); a state of about d_feature^2 D / 2 numbers. It knows no positions: the paper stacks it with
layers of sliding-window attention and of short convolution. The first are had by `hybrid` with
`pattern=sliding-attention,based` and `sliding-attention.window=64`, the second by the backbone's
`short_conv`.
Agrees with a loop from the paper to 2e-15 in float64 (docs/fidelity.md).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import heads
from mechbench.ops import linear, taylor_attention


@register_operator("based", source="Arora et al. 2024 (arXiv:2402.18668), Taylor linear attention")
class Based(nn.Module):
    """Causal linear attention with the second-order Taylor feature map, normalised.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        d_feature: size of a head's queries and keys; features grow with its square.
        chunk: positions computed as one matrix; affects only speed, and not that of the kernels.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Arora et al. 2024, Taylor linear attention",
            5e-15,
            "heads of 32 channels by default; each product of two features is held once; nothing "
            "is added to the normaliser (code: 1e-12)",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        d_feature: int = 16,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        check_options(d_feature=d_feature, chunk=chunk)
        self.n_heads = heads(d_model, n_heads)
        self.max_seqlen, self.chunk = max_seqlen, chunk
        self.query = nn.Linear(d_model, self.n_heads * d_feature, bias=False)
        self.key = nn.Linear(d_model, self.n_heads * d_feature, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q and k (B, H, L, d_feature) and v (B, H, L, d)."""
        q, k, v = (
            torch.unflatten(project(u), -1, (self.n_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        return q, k, v

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        y = taylor_attention(*self._signals(u), chunk=self.chunk)  # (B, H, L, d)
        out: Tensor = linear(y.transpose(1, 2).flatten(2), self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the normalised weights, (B, H, L, L)."""
        q, k, v = self._signals(u)
        wide = torch.promote_types(v.dtype, torch.float32)
        z = q.to(wide) @ k.to(wide).transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = (1 + z + z.square() / 2).tril()
        out: Tensor = weights / weights.sum(-1, keepdim=True)
        return out
