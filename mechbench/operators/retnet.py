"""Multi-scale retention: linear attention whose heads forget at fixed, different rates.

    y_t = sum_{s <= t} gamma_h^{t - s} (R_t q_t) . (R_s k_s) / sqrt(d_head) v_s
    out = W_o (swish(W_g u) norm(y)),   gamma_h = 1 - 2^{-e_h},   e_1 .. e_H from 5 to 12

Source: Sun et al. 2023, equations 5, 7 and 8. Values are twice as wide as keys, as in their
section 3.1. Deviations: the published e_h = 5 + h reaches 12 at eight heads; ours spreads the same
range over any number of heads, because two heads at 5 and 6 forget all after 512 tokens
(decays=consecutive: as published). Group norm is the paper's text; norm=rms is its code.
O(L D d_head) time, O(L D) memory, a state of 2 d_head^2 numbers per head.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import check_rotary, heads
from mechbench.ops import decay_attention, decay_attention_matrix, gated_head_norm, linear, rotary
from mechbench.ops.backends import BackendName


@register_operator("retnet", source="Sun et al. 2023 (arXiv:2307.08621), section 2")
class RetNet(nn.Module):
    """Multi-scale retention with group norm, swish gate and rotary positions.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        expand_v: width of the values, in multiples of d_model.
        rotary_base: base of the rotary wavelengths.
        decays: "spread": exponents evenly from 5 to 12 (12 for a single head); "consecutive":
            5, 6, 7, .., as published, whatever the number of heads.
        norm: of each head's outputs: "group" (mean and variance, with weights; the paper's text) or
            "rms" (root mean square, without weights; the paper's code).
        chunk: positions computed as one matrix; affects only speed.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.

    Raises:
        ConfigError: d_model is not an even multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Sun et al. 2023, recurrent form",
            2e-8,
            "decay rates are kept in float32, hence the error; decays spread from 1 - 2^-5 to "
            "1 - 2^-12 over any number of heads (`decays=consecutive`: as published; the same at "
            "8 heads), because at D 64 nothing was left after 512 tokens; group norm as in the "
            "text (`norm=rms`: as in the code)",
        ),
    )

    implied: ClassVar = {"decays": "consecutive", "norm": "group", "backend": "auto"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        expand_v: int = 2,
        rotary_base: float = 10_000.0,
        decays: Literal["spread", "consecutive"] = "spread",
        norm: Literal["group", "rms"] = "group",
        chunk: int = 64,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__()
        check_options(expand_v=expand_v, chunk=chunk)
        check_rotary(rotary_base)
        self.n_heads, self.backend = heads(d_model, n_heads, even=True), backend
        self.max_seqlen, self.rotary_base, self.chunk = max_seqlen, rotary_base, chunk
        self.widths = [d_model, d_model, expand_v * d_model, expand_v * d_model]  # q, k, v, gate
        self.in_proj = nn.Linear(d_model, sum(self.widths), bias=False)
        self.norm = nn.GroupNorm(self.n_heads, expand_v * d_model) if norm == "group" else None
        self.out_proj = nn.Linear(expand_v * d_model, d_model, bias=False)
        self.log_gamma: Tensor
        exponents = 5 + torch.arange(self.n_heads)
        if decays == "spread":
            exponents = torch.linspace(12, 5, self.n_heads).flip(0)  # one head: 12
        gamma = 1 - 2.0**-exponents
        self.register_buffer("log_gamma", gamma.log()[:, None], persistent=False)  # (H, 1)

    def _heads(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q, k and v as (B, H, L, d), and the gate as (B, L, expand_v D)."""
        q, k, v, gate = torch.split(linear(u, self.in_proj), self.widths, -1)
        q, k, v = (torch.unflatten(x, -1, (self.n_heads, -1)).transpose(1, 2) for x in (q, k, v))
        q = rotary(q, self.rotary_base) / q.shape[-1] ** 0.5
        return q, rotary(k, self.rotary_base), v, gate

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        q, k, v, gate = self._heads(u)
        y = decay_attention(q, k, v, self.log_gamma, self.chunk, backend=self.backend)
        if self.norm is None:
            y = F.rms_norm(y, y.shape[-1:], eps=1e-6).transpose(1, 2).flatten(2)
            y = F.silu(gate) * y
        else:
            y = gated_head_norm(y, gate, self.norm)  # (B, L, expand_v D)
        out: Tensor = linear(y, self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on the values, before norm and gate, (B, H, L, L)."""
        q, k, _, _ = self._heads(u)
        return decay_attention_matrix(q, k, self.log_gamma)
