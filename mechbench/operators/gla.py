"""Gated linear attention: a state each of whose key channels decays at a rate the input sets.

    S_t = diag(alpha_t) S_{t-1} + k_t v_t^T,   y_t = S_t^T q_t / sqrt(d_key)
    out = W_o (rms_norm(y) silu(W_g u)),   alpha_t = sigmoid(W_2 W_1 u_t + b)^{1 / 16}

q, k and v are linear in u; keys are half as wide as values; W_1 has rank 16.

Source: Yang et al. 2023 (arXiv:2312.06635), section 4.1 (recurrence) and section 4.4 (layer), with
the norm and the widths of its code (flash-linear-attention). Matrices start with PyTorch's default.
With n_heads h: O(L (chunk + D / h) D) time, O(L D log(chunk)) memory, a state of D^2 / (2 h)
numbers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import channel_decay_attention, channel_decay_scores, gated_norm, linear


@register_operator("gla", source="Yang et al. 2023 (arXiv:2312.06635), section 4")
class GatedLinearAttention(nn.Module):
    """Linear attention with a decay per key channel, set by the input, and a gated output norm.

    Args:
        d_model: D, channels; keys have half as many.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: 4, or 2 or 1 where channels cannot be cut so.
        expand_v: width of the values, in multiples of d_model.
        gate_rank: rank of the map from the input to the decays.
        gate_temperature: what the logarithms of the decays are divided by.
        chunk: positions computed as one matrix; affects only speed.

    Raises:
        ConfigError: keys or values cannot be cut into n_heads, or an option out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Yang et al. 2023, recurrence",
            1e-14,
            "norm without mean, no bias of the gate: its code",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        expand_v: int = 1,
        gate_rank: int = 16,
        gate_temperature: float = 16.0,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        check_options(
            n_heads=n_heads,
            expand_v=expand_v,
            gate_rank=gate_rank,
            gate_temperature=gate_temperature,
            chunk=chunk,
        )
        d_key, d_value = max(1, d_model // 2), expand_v * d_model
        self.n_heads = n_heads or next(h for h in (4, 2, 1) if not d_key % h and not d_value % h)
        if d_key % self.n_heads or d_value % self.n_heads:
            raise ConfigError(
                f"{d_key} channels of keys and {d_value} of values over {n_heads} heads: expected "
                "whole numbers a head"
            )
        self.max_seqlen, self.chunk, self.temperature = max_seqlen, chunk, gate_temperature
        self.widths = [d_key, d_key, d_value, d_value, gate_rank]  # q, k, v, gate, W_1 u
        self.in_proj = nn.Linear(d_model, sum(self.widths), bias=False)
        self.decay_proj = nn.Linear(gate_rank, d_key)
        self.norm = nn.RMSNorm(d_value // self.n_heads, eps=1e-5)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v and the logits of alpha, each (B, H, L, d), and the gate (B, L, E)."""
        q, k, v, gate, low = self.in_proj(u).split(self.widths, -1)
        q, k, v, logits = (
            torch.unflatten(x, -1, (self.n_heads, -1)).transpose(1, 2)
            for x in (q, k, v, linear(low, self.decay_proj))
        )
        return q, k, v, logits, gate

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        q, k, v, logits, gate = self._signals(u)
        y = channel_decay_attention(
            q, k, v, logits, self.chunk, scale=q.shape[-1] ** -0.5, temperature=self.temperature
        )
        out: Tensor = self.out_proj(gated_norm(y, gate, self.norm))  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on the values, before norm and gate, (B, H, L, L)."""
        q, k, _, logits, _ = self._signals(u)
        log_alpha = F.logsigmoid(logits) / self.temperature
        return channel_decay_scores(q / q.shape[-1] ** 0.5, k, log_alpha.cumsum(-2))
