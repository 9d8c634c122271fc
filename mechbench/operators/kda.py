"""Kimi delta attention: the delta rule with a decay for each key channel.

    S_t = (I - beta_t k_t k_t^T) diag(alpha_t) S_{t-1} + beta_t k_t v_t^T
    y_t = S_t^T q_t / sqrt(d_head)
    out = W_o (rms_norm(y) sigmoid(W_g2 W_g1 u))

q, k, v are linear in u, then pass a short convolution and silu; q and k are scaled to norm 1;
beta = sigmoid(W_b u), twice that with `allow_neg_eigval`;
alpha = exp(-rate softplus(W_a2 W_a1 u + bias)), one rate per head and one bias per channel. The
rank of W_a1 and W_g1 is d_head.

Source: Kimi Team 2025 (arXiv:2510.26692), equations 1 and 10 and section 4; rates, the bias of the
decays and the scale of q as in its code (flash-linear-attention), whose output gate has a bias,
too; here it has none, as in equation 10. O(L (chunk + d_head) D) time, O(L D log(chunk)) memory, a
state of d_head^2 numbers per head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.operators.decay import ChannelDecay
from mechbench.operators.delta_layer import DeltaLayer, Signals
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import linear, unit


@register_operator("kda", source="Kimi Team 2025 (arXiv:2510.26692), sections 3 and 4")
class KimiDeltaAttention(DeltaLayer):
    """Delta rule with a decay per key channel, short convolutions and a low-rank output gate.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        expand_v: width of the values, in multiples of d_model.
        short_filter: taps of the short convolutions on q, k and v.
        allow_neg_eigval: whether beta reaches 2 instead of 1, so that a step may turn what a key
            held into its negative.
        chunk: positions computed as one matrix; affects only speed.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    decay: ChannelDecay
    act: ClassVar = "sigmoid"
    fidelity: ClassVar = (
        Fidelity(
            "Kimi Team 2025, equations 1 and 10",
            1e-14,
            "heads of 32 channels by default (128 in the paper); PyTorch's initialisation; no bias "
            "of the output gate, as in equation 10 (its code has one)",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        expand_v: int = 1,
        short_filter: int = 4,
        allow_neg_eigval: bool = False,
        chunk: int = 64,
    ) -> None:
        super().__init__(
            d_model,
            max_seqlen,
            n_heads=n_heads,
            expand_v=expand_v,
            short_filter=short_filter,
            chunk=chunk,
            allow_neg_eigval=allow_neg_eigval,
            rest=lambda heads: (d_model // heads, d_model // heads, heads),  # W_a1 u, W_g1 u, beta
            decay=lambda heads: ChannelDecay(heads, d_model // heads),
        )
        d_head = d_model // self.n_heads
        self.decay_proj = nn.Linear(d_head, d_model, bias=False)
        self.gate_proj = nn.Linear(d_head, expand_v * d_model, bias=False)

    def signals(self, u: Tensor) -> Signals:
        """Return what the rule is given for u (B, L, D)."""
        q, k, v, (a, g, b) = self.project(u)
        logits = torch.unflatten(linear(a, self.decay_proj), -1, (self.n_heads, -1)).transpose(1, 2)
        gate = linear(g, self.gate_proj)
        q = unit(q, q.shape[-1] ** -0.5)
        return Signals(q, unit(k), v, self.decay(logits), self.steps(b), gate)
