"""Causal softmax attention with rotary positions, through PyTorch's fused kernels.

    y = W softmax(mask(q k^T / sqrt(d_head))) v

Source: Vaswani et al. 2017; positions: Su et al. 2021. It reaches keys at any distance, in O(L^2 D)
time and O(L D) memory (flash, memory-efficient or cuDNN kernels, as PyTorch chooses).
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from mechbench.catalogue.registry import register_operator
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import MultiHead


@register_operator("attention", source="Vaswani et al. 2017 (arXiv:1706.03762), section 3.2")
class Attention(MultiHead):
    """Causal multi-head attention (SDPA) with rotary positions.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        rotary_base: base of the rotary wavelengths.

    Raises:
        ConfigError: d_model is not an even multiple of n_heads.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity("softmax over the past with rotary positions", 6e-16),
    )

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map queries, keys and values, each (B, H, L, d), to outputs of that shape."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
