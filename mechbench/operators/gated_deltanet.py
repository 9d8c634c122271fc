"""Gated DeltaNet: a state that decays, and overwrites what a key held.

    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T
    y_t = S_t^T q_t / sqrt(d_head)
    out = W_o (rms_norm(y) silu(W_g u))

q, k, v are linear in u, then pass a short convolution and silu; q and k are scaled to norm 1;
beta = sigmoid(W_b u); alpha = exp(-rate softplus(W_a u + bias)).

Source: Yang, Kautz & Hatamizadeh 2024, equation 10, section 3.3 and figure 1 (values twice as wide
as keys). O(L (chunk + d_head) D) time, O(L D) memory, a state of 2 d_head^2 numbers per head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen
from mechbench.operators.decay import Decay
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import heads
from mechbench.ops import delta_rule, delta_rule_matrix, short_conv


@register_operator(
    "gated-deltanet", source="Yang, Kautz & Hatamizadeh 2024 (arXiv:2412.06464), section 3"
)
class GatedDeltaNet(nn.Module):
    """Gated delta rule with short convolutions, normalised keys and a gated output norm.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        expand_v: width of the values, in multiples of d_model.
        short_filter: taps of the short convolutions on q, k and v.
        min_rate: initial rates are uniform between this and 16; 0 as in flash-linear-attention.
        chunk: positions computed as one matrix; affects only speed.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Yang et al. 2024, equation 10",
            6e-15,
            "two values a key channel and heads of 32 by default; rates start at U(0, 16) as in "
            "flash-linear-attention",
        ),
    )

    implied: ClassVar = {"min_rate": 1.0}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        expand_v: int = 2,
        short_filter: int = 4,
        min_rate: float = 0.0,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        check_options(expand_v=expand_v, short_filter=short_filter, min_rate=min_rate, chunk=chunk)
        self.n_heads = heads(d_model, n_heads)
        self.max_seqlen, self.chunk = max_seqlen, chunk
        d_value = expand_v * d_model
        self.convolved = [d_model, d_model, d_value]  # q, k, v
        self.rest = [d_value, self.n_heads, self.n_heads]  # gate, logits of alpha and of beta
        self.in_proj = nn.Linear(d_model, sum(self.convolved) + sum(self.rest), bias=False)
        bound = short_filter**-0.5
        self.short_weight = nn.Parameter(
            torch.empty(sum(self.convolved), short_filter).uniform_(-bound, bound)
        )
        self.decay = Decay(self.n_heads, min_rate)
        self.norm = nn.RMSNorm(d_value // self.n_heads, eps=1e-5)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v (B, H, L, ..), log alpha and beta (B, H, L), and the gate (B, L, E)."""
        qkv, gate, a, b = self.in_proj(u).split([sum(self.convolved), *self.rest], -1)
        qkv = F.silu(
            short_conv(qkv.transpose(1, 2), self.short_weight.to(qkv.dtype)).transpose(1, 2)
        )
        q, k, v = (
            torch.unflatten(x, -1, (self.n_heads, -1)).transpose(1, 2)
            for x in torch.split(qkv, self.convolved, -1)
        )  # (B, H, L, d)
        wide = torch.promote_types(u.dtype, torch.float32)
        q, k = (x.to(wide) * (x.to(wide).square().sum(-1, True) + 1e-6).rsqrt() for x in (q, k))
        _, log_alpha = self.decay(a.transpose(1, 2))
        beta = b.to(wide).sigmoid().transpose(1, 2)
        return q / q.shape[-1] ** 0.5, k, v, log_alpha, beta, gate

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        q, k, v, log_alpha, beta, gate = self._signals(u)
        y = delta_rule(q, k, v.to(q.dtype), log_alpha, beta, self.chunk)  # (B, H, L, d)
        y = self.norm(y).to(v.dtype).transpose(1, 2).flatten(2)  # (B, L, E)
        out: Tensor = self.out_proj(y * F.silu(gate))  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on the values, before norm and gate, (B, H, L, L)."""
        q, k, _, log_alpha, beta, _ = self._signals(u)
        return delta_rule_matrix(q, k, log_alpha, beta)
