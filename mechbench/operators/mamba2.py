"""Mamba-2: a selective state space with one decay per head, in its dual (SSD) matrix form.

    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T,   y_t = S_t^T C_t + skip x_t
    out = W_o rms_norm(y silu(z))

z, x, B, C, dt are linear in u; x, B and C then pass a short convolution and silu; dt becomes
softplus(dt + bias); A is one negative number per head.

Source: Dao & Gu 2024 (arXiv:2405.21060), section 6 (chunks) and section 7.1 (block), with the
initialisation and the defaults of their code (d_state 128, expand 2, d_head 64, 4 taps). O(L (chunk
+ d_state) expand D) time, O(L D) memory, a state of expand D d_state numbers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen
from mechbench.operators.decay import Decay
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import (
    decay_attention,
    decay_attention_matrix,
    linear,
    norm_gated,
    short_conv_tokens,
    split_linear,
)
from mechbench.ops.backends import BackendName


@register_operator("mamba2", source="Dao & Gu 2024 (arXiv:2405.21060), sections 6 and 7")
class Mamba2(nn.Module):
    """Selective state space (SSD) with short convolution, skip and gated norm.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        d_state: size of a channel's state.
        expand: inner channels, in multiples of d_model.
        n_heads: heads; 0: as many as make d_head 64 (at least one).
        short_filter: taps of the short convolution on x, B and C.
        chunk: positions computed as one matrix; affects only speed.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.

    Raises:
        ConfigError: the inner channels are not a multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (Fidelity("Dao & Gu 2024, recurrence", 5e-16),)

    implied: ClassVar = {"backend": "auto"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        d_state: int = 128,
        expand: int = 2,
        n_heads: int = 0,
        short_filter: int = 4,
        chunk: int = 64,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__()
        check_options(
            d_state=d_state, expand=expand, short_filter=short_filter, chunk=chunk, n_heads=n_heads
        )
        d_inner = expand * d_model
        self.n_heads = n_heads or max(1, d_inner // 64)
        if d_inner % self.n_heads:
            raise ConfigError(
                f"{d_inner} inner channels over {self.n_heads} heads: expected a whole number each"
            )
        self.max_seqlen, self.chunk, self.backend = max_seqlen, chunk, backend
        self.convolved = [d_inner, d_state, d_state]  # x, B, C
        self.in_proj = nn.Linear(d_model, d_inner + sum(self.convolved) + self.n_heads, bias=False)
        bound = short_filter**-0.5
        self.short_weight = nn.Parameter(
            torch.empty(sum(self.convolved), short_filter).uniform_(-bound, bound)
        )
        self.short_bias = nn.Parameter(torch.empty(sum(self.convolved)).uniform_(-bound, bound))
        self.decay = Decay(self.n_heads)
        self.skip = nn.Parameter(torch.ones(self.n_heads))
        self.norm = nn.RMSNorm(d_inner, eps=1e-5)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return z (B, L, E), x (B, H, L, P), B and C (B, 1, L, N), dt and dt A (B, H, L)."""
        d_inner = self.convolved[0]
        widths = [d_inner, sum(self.convolved), self.n_heads]
        z, xbc, dt = split_linear(u, self.in_proj, widths)
        xbc = short_conv_tokens(xbc, self.short_weight, self.short_bias, silu=True)
        x, b, c = torch.split(xbc, self.convolved, -1)
        x = torch.unflatten(x, -1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, L, P)
        dt, log_decay = self.decay(dt.transpose(1, 2))
        return z, x, b[:, None], c[:, None], dt, log_decay

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        z, x, b, c, dt, log_decay = self._signals(u)
        y = decay_attention(
            c, b, x, log_decay, self.chunk, scale=dt, skip=self.skip, backend=self.backend
        )
        y = y.transpose(1, 2).flatten(2)  # (B, L, E)
        out: Tensor = linear(norm_gated(y, z, self.norm), self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on x in y, before gate and norm, (B, H, L, L)."""
        _, _, b, c, dt, log_decay = self._signals(u)
        eye = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
        H = decay_attention_matrix(c, b, log_decay) * dt[..., None, :]
        return H + self.skip[:, None, None] * eye
