"""Causal softmax attention with rotary positions, through PyTorch's fused kernels.

    y = W softmax(mask(q k^T / sqrt(d_head))) v

Source: Vaswani et al. 2017; positions: Su et al. 2021. Keys of any age are reached, in O(L^2 D)
time and O(L D) memory (flash, memory-efficient or cuDNN kernels, PyTorch's choice).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen
from mechbench.ops import rotary
from mechbench.registry import register_operator


@register_operator("attention", source="Vaswani et al. 2017 (arXiv:1706.03762), section 3.2")
class Attention(nn.Module):
    """Causal multi-head attention (SDPA) with rotary positions.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0 takes as many as give d_head 32 (at least one).
        rotary_base: base of the rotary wavelengths.

    Raises:
        ConfigError: d_model is not an even multiple of n_heads.
    """

    def __init__(
        self, d_model: int, max_seqlen: int, *, n_heads: int = 0, rotary_base: float = 10_000.0
    ) -> None:
        super().__init__()
        if n_heads < 0:
            raise ConfigError(f"n_heads is {n_heads}: expected at least 1, or 0 for d_head 32")
        n_heads = n_heads or max(1, d_model // 32)
        if d_model % n_heads or (d_model // n_heads) % 2:
            raise ConfigError(
                f"d_model {d_model} over {n_heads} heads: expected an even whole number a head"
            )
        self.max_seqlen, self.n_heads, self.rotary_base = max_seqlen, n_heads, rotary_base
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def _heads(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv(u).unflatten(-1, (3, self.n_heads, -1))  # (B, L, 3, H, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, d) each
        return rotary(q, self.rotary_base), rotary(k, self.rotary_base), v

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        q, k, v = self._heads(u)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, L, d)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the attention weights, (B, H, L, L)."""
        q, k, _ = self._heads(u)
        L = u.shape[1]
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = scores.new_ones(L, L).triu(1).bool()
        weights: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1)
        return weights
