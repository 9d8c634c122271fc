"""What layers of the delta rule share: projections, short convolutions, normalised keys, the norm.

    q, k = l2_norm(silu(conv(W u))),   v = silu(conv(W_v u)),   beta = sigmoid(W_b u)
    out = W_o (rms_norm(y) act(gate)),   y from `delta_rule`

Source: Yang et al. 2024 (arXiv:2406.06484), section 3; beta up to 2, so that I - beta k k^T has
eigenvalues from -1 to 1: Grazzi et al. 2024 (arXiv:2411.12537); with several steps a token: Siems
et al. 2025 (arXiv:2502.10297).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen
from mechbench.operators.multihead import heads
from mechbench.ops import (
    delta_rule,
    delta_rule_matrix,
    heads_norm,
    linear,
    short_conv_tokens,
    split_linear,
)
from mechbench.ops.backends import BackendName


class Signals(NamedTuple):
    """What the delta rule is given."""

    q: Tensor  # (B, H, L, K), scaled by 1 / sqrt(K)
    k: Tensor  # (B, H, L, K), of norm 1
    v: Tensor  # (B, H, L, P)
    log_decay: Tensor | None  # (B, H, L), or one a key channel; None: no decay
    beta: Tensor  # (B, H, L)
    gate: Tensor | None  # (B, L, H P), of the normalised outputs, before its activation


class DeltaLayer(nn.Module):
    """A layer of the delta rule; a subclass says in `signals` how it decays, steps and gates.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        expand_v: width of the values, in multiples of d_model.
        short_filter: taps of the short convolutions on q, k and v.
        chunk: positions computed as one matrix; affects only speed.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.
        allow_neg_eigval: whether beta reaches 2 instead of 1.
        rest: given the number of heads, the widths of the projections beside q, k and v.
        decay: given the number of heads, the module in `decay`. Built after the projections: the
            order of random draws is part of what stored results mean.
        n_steps: keys and values of a token.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    decay: nn.Module
    act: ClassVar[Literal["silu", "sigmoid"]] = "silu"  # of the gate

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int,
        expand_v: int,
        short_filter: int,
        chunk: int,
        backend: BackendName = "auto",
        allow_neg_eigval: bool,
        rest: Callable[[int], Sequence[int]],
        decay: Callable[[int], nn.Module] | None = None,
        n_steps: int = 1,
    ) -> None:
        super().__init__()
        check_options(expand_v=expand_v, short_filter=short_filter, chunk=chunk)
        self.n_heads = heads(d_model, n_heads)
        self.max_seqlen, self.chunk, self.backend = max_seqlen, chunk, backend
        self.max_beta = 2.0 if allow_neg_eigval else 1.0
        d_value = expand_v * d_model
        self.convolved = [d_model, n_steps * d_model, n_steps * d_value]  # q, k, v
        self.rest = list(rest(self.n_heads))
        self.in_proj = nn.Linear(d_model, sum(self.convolved) + sum(self.rest), bias=False)
        bound = short_filter**-0.5
        self.short_weight = nn.Parameter(
            torch.empty(sum(self.convolved), short_filter).uniform_(-bound, bound)
        )
        if decay is not None:
            self.decay = decay(self.n_heads)
        self.norm = nn.RMSNorm(d_value // self.n_heads, eps=1e-5)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Return q, k and v, each (B, H, L, n_steps d) without norms, and the rest (B, L, ..)."""
        widths = [sum(self.convolved), *self.rest]
        qkv, *rest = split_linear(u, self.in_proj, widths)
        qkv = short_conv_tokens(qkv, self.short_weight, silu=True)
        q, k, v = (
            torch.unflatten(x, -1, (self.n_heads, -1)).transpose(1, 2)
            for x in torch.split(qkv, self.convolved, -1)
        )
        return q, k, v, tuple(rest)

    def steps(self, logits: Tensor) -> Tensor:
        """Return beta (B, H, L), float32 or wider, from logits (B, L, H)."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        return self.max_beta * logits.to(wide).sigmoid().transpose(1, 2)

    def signals(self, u: Tensor) -> Signals:
        """Return what the rule is given for u (B, L, D)."""
        raise NotImplementedError

    def rule(self, s: Signals) -> Tensor:
        """Return y, (B, H, L, P)."""
        return delta_rule(s.q, s.k, s.v, s.log_decay, s.beta, self.chunk, self.backend)

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        s = self.signals(u)
        y = heads_norm(self.rule(s), self.norm, s.v.dtype, s.gate, self.act)  # (B, L, H P)
        out: Tensor = linear(y, self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on the values, before norm and gate, (B, H, L, L)."""
        s = self.signals(u)
        return delta_rule_matrix(s.q, s.k, s.log_decay, s.beta)
