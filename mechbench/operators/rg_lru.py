"""The recurrent block of Griffin: a real-gated linear recurrent unit (RG-LRU) beside a GeLU.

    x = conv(W_x u),   r = sigmoid(W_r x),   i = sigmoid(W_i x),   log a_t = c r_t log sigmoid(lam)
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t x_t,   out = W_o (h GeLU(W_g u))

with h_{-1} = 0, c = 8, a short convolution of 4 taps, and E channels in x, h and the gate. W_r and
W_i are block-diagonal with n_heads blocks. Every linear map has a bias.
Source: De et al. 2024 (arXiv:2402.19427), section 2.3 (block) and section 2.4, equations 1 to 4,
where lam starts such that sigmoid(lam)^c is uniform in (0.9, 0.999). Blocks of W_r and W_i, and how
all other weights start, are those of the released RecurrentGemma. Deviations from that code: it
does not scale the first token by sqrt(1 - a^2), draws sigmoid(lam) itself from that range,
approximates GeLU by tanh, and bounds the gradient of the square root, which needs no bound here
because 1 - a^2 is computed without cancellation; its last matrix starts smaller in deep models.
O(L E) time in O(log L) steps (`mechbench.ops.diagonal_scan`), a state of E numbers.
Agrees with equations 1 to 4, token by token, to 4e-16 in float64.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import heads
from mechbench.ops import affine, diagonal_scan, diagonal_scan_matrix, linear, short_conv_tokens

_C = 8  # scales log a
_SLOW, _FAST = 0.999, 0.9  # range of sigmoid(lam)^c at the start


@register_operator("rg-lru", source="De et al. 2024 (arXiv:2402.19427), section 2.4, Griffin")
class RGLRU(nn.Module):
    """Real-gated linear recurrent unit, with Griffin's short convolution and GeLU branch.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        d_rnn: E, channels of the recurrence; 0: 4/3 d_model, about what Hawk and Griffin have
            (section 3; the parameters of attention), rounded up to a multiple of 8 and of n_heads.
        n_heads: blocks of the gates' matrices; 0: one for every 32 of d_model (at least one).
        short_filter: taps of the convolution.

    Raises:
        ConfigError: d_model or d_rnn is not a multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "De et al. 2024, equations 1 to 4 and the block of section 2.3",
            1e-15,
            "blocks of the gates' matrices, and how weights start, are the released code's; its "
            "unscaled first token and its range of sigmoid(lam) are not, being not the paper's",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        d_rnn: int = 0,
        n_heads: int = 0,
        short_filter: int = 4,
    ) -> None:
        super().__init__()
        check_options(d_rnn=d_rnn, short_filter=short_filter)
        self.n_heads, self.max_seqlen = heads(d_model, n_heads), max_seqlen
        unit = math.lcm(8, self.n_heads)
        d_rnn = d_rnn or -(-4 * d_model // (3 * unit)) * unit
        if d_rnn % self.n_heads:
            raise ConfigError(f"d_rnn is {d_rnn}: expected a multiple of {self.n_heads} heads")
        d_head = d_rnn // self.n_heads
        self.in_proj = nn.Linear(d_model, 2 * d_rnn)  # x, and what passes GeLU
        taps = torch.randn(d_rnn, short_filter)
        self.short_weight = nn.Parameter(0.1 * short_filter**-0.5 * taps)
        self.short_bias = nn.Parameter(torch.zeros(d_rnn))
        self.gates = nn.Parameter(d_head**-0.5 * torch.randn(self.n_heads, d_head, 2 * d_head))
        self.gate_bias = nn.Parameter(torch.zeros(2 * d_rnn))
        log_a = torch.empty(d_rnn).uniform_(_FAST, _SLOW).log() / _C
        self.lam = nn.Parameter(log_a - torch.log(-torch.expm1(log_a)))  # sigmoid's inverse
        self.out_proj = nn.Linear(d_rnn, d_model)
        for layer in (self.in_proj, self.out_proj):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return log a, sqrt(1 - a^2), i x (float32 or wider) and the GeLU, each (B, L, E)."""
        x, gate = linear(u, self.in_proj).chunk(2, -1)
        x = short_conv_tokens(x, self.short_weight, self.short_bias)
        # As one matrix with zeros beside its blocks: small products in batches are slow on a GPU.
        both = affine(x, *self._gate_matrix())
        wide = torch.promote_types(x.dtype, torch.float32)
        r, i = both.to(wide).sigmoid().chunk(2, -1)  # (B, L, E)
        log_a = _C * r * F.logsigmoid(self.lam.to(wide))
        # At least the smallest number, or the root's gradient would be infinite where r is 0.
        scale = (-torch.expm1(2 * log_a)).clamp_min(torch.finfo(wide).tiny).sqrt()
        return log_a, scale, i * x.to(wide), F.gelu(gate)

    def _gate_matrix(self) -> tuple[Tensor, Tensor]:
        """Return weight (2 E, E) and bias (2 E,) of both gates, all of r before all of i."""
        halves = (half.mT for half in self.gates.chunk(2, -1))
        weights = [torch.block_diag(*half) for half in halves]  # type: ignore[no-untyped-call]
        bias = self.gate_bias.view(self.n_heads, 2, -1).transpose(0, 1)
        return torch.cat(weights), bias.flatten()

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        log_a, scale, v, gate = self._signals(u)
        h = diagonal_scan(log_a.exp(), scale * v)  # (B, L, E)
        out: Tensor = linear(h.to(gate.dtype) * gate, self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the gated weights of the gated inputs: out = W_o (H(u) (i x)), (B, E, L, L)."""
        check_seqlen(u, self.max_seqlen)
        log_a, scale, _, gate = self._signals(u)
        rows, columns = gate.transpose(1, 2)[..., None], scale.transpose(1, 2)[..., None, :]
        return rows * diagonal_scan_matrix(log_a) * columns
