"""Forgetting attention: softmax attention with a forget gate in place of positions.

    y_t = W_o sum_{s <= t} softmax_s(q_t . k_s / sqrt(d_head) + log f_{s+1} + .. + log f_t) v_s
    f_t = sigmoid(W_f u_t + b_f), one gate per head

Source: Lin et al. 2025 (arXiv:2503.02130), Forgetting Attention, as in their FoX (LLaMA): no
positions, no biases but b_f, which starts at 0. It reaches keys at any distance whose gates stay
open. O(L^2 D) time, O(L (chunk + D)) memory. Left out: what only their "Pro" block has (output
gate, norms of queries, keys and outputs, shifts of keys and values).
Agrees with a loop from the paper to 3e-16 in float64 (docs/fidelity.md).
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
from mechbench.ops import (
    forgetting_attention,
    forgetting_heads,
    forgetting_weights,
    linear,
    log_gates,
    rotary_heads,
)


@register_operator("forgetting-attention", source="Lin et al. 2025 (arXiv:2503.02130)")
class ForgettingAttention(nn.Module):
    """Causal multi-head softmax attention with a data-dependent forget gate per head.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        rotary_base: base of the rotary wavelengths; 0: no positions, as published.
        chunk: queries whose weights are held at once where no kernels run; affects only speed and
            memory.

    Raises:
        ConfigError: d_model is not a multiple of n_heads (with rotary positions an even one), or an
            option out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Lin et al. 2025, Forgetting Attention, FoX (LLaMA)",
            1e-15,
            "heads of 32 channels by default; matrices start with PyTorch's default; the gate, "
            "norms and shifts of the Pro block are left out",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        rotary_base: float = 0.0,
        chunk: int = 128,
    ) -> None:
        super().__init__()
        check_options(rotary_base=rotary_base, chunk=chunk)
        self.n_heads = heads(d_model, n_heads, even=rotary_base > 0)
        self.max_seqlen, self.rotary_base, self.chunk = max_seqlen, rotary_base, chunk
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.forget = nn.Linear(d_model, self.n_heads)
        nn.init.zeros_(self.forget.bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projection into heads (B, L, 3, H, d) and the gates' logits (B, L, H)."""
        qkv = torch.unflatten(self.qkv(u), -1, (3, self.n_heads, -1))
        return qkv, linear(u, self.forget)

    def _rotated(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v, each (B, H, L, d)."""
        if self.rotary_base:
            return rotary_heads(qkv, self.rotary_base)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        qkv, gate = self._signals(u)
        if self.rotary_base:
            y = forgetting_attention(*self._rotated(qkv), log_gates(gate), self.chunk)
        else:
            y = forgetting_heads(qkv, gate, self.chunk)  # (B, H, L, d)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the attention weights, (B, H, L, L)."""
        qkv, gate = self._signals(u)
        q, k, _ = self._rotated(qkv)
        return forgetting_weights(q, k, log_gates(gate))
