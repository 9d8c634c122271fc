"""Causal softmax attention that keeps its full matrix of weights in memory.

    y = W softmax(mask(q k^T / sqrt(d_head))) v

Source: Vaswani et al. 2017, equation 1; positions: Su et al. 2021. The same function and parameters
as `attention`, in O(L^2 D) time and O(L^2) memory per head, which fused kernels save.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mechbench.catalogue.registry import register_operator
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import MultiHead, softmax_weights


@register_operator("eager-attention", source="Vaswani et al. 2017 (arXiv:1706.03762), equation 1")
class EagerAttention(MultiHead):
    """Causal multi-head attention with rotary positions, keeping its L x L weights in memory.

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
        return softmax_weights(q, k).to(v.dtype) @ v
