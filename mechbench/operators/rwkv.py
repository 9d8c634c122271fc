"""Time mixing of RWKV, version 4: a gated, exponentially decaying average of the past.

    x' = x_{t-1};  r, k, v = W_r (m_r x + (1 - m_r) x'), W_k (...), W_v (...)
    wkv_t = (sum_{s<t} e^{k_s - (t-1-s) w} v_s + e^{k_t + b} v_t) / (the same sums without v)
    y_t = W_o (sigmoid(r_t) wkv_t)

with w = exp(speed) > 0 the decay and b the bonus of the current token, one of each per channel.
Source: Peng et al. 2023 (arXiv:2305.13048), section 3, time mixing; initial mixes, decays and
bonuses are those that the released version 4 gives a first layer, or, with `depth`, each layer of
so many. Deviations: matrices start with PyTorch's initialisation instead of zeros; the backbone's
MLP, without a token shift, takes the place of channel mixing, unless that is asked for.
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
from mechbench.operators.channel_mixing import ChannelMixing
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import decayed_average, linear
from mechbench.ops.backends import BackendName


@register_operator("rwkv", source="Peng et al. 2023 (arXiv:2305.13048), version 4, section 3")
class RWKV(nn.Module):
    """Time mixing of RWKV-4: token shift and a decaying average with a bonus.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        depth: layers of the model, which decides how each starts; 0: all start as a first layer.
        channel_mixing: put RWKV's channel mixing in the place of the MLP that all operators have.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.
        layer: index of its block, from 0.

    Raises:
        ConfigError: depth out of range, or layer not below it.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "RWKV-4 time mixing, recurrence",
            2e-15,
            "every layer starts as a first one (`depth=N`: as released in a model of N layers); "
            "matrices start with PyTorch's default; the backbone's MLP, the same for all, stands "
            "for channel mixing with its token shift (`channel_mixing=true`: as released)",
        ),
    )

    implied: ClassVar = {"depth": 0, "channel_mixing": False, "backend": "auto"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        depth: int = 0,
        channel_mixing: bool = False,
        backend: BackendName = "auto",
        layer: int = 0,
    ) -> None:
        super().__init__()
        check_options(depth=depth)
        if depth and layer >= depth:
            raise ConfigError(
                f"depth is {depth}: expected at least {layer + 1}, this layer's number"
            )
        rise = layer / max(1, depth - 1) if depth else 0.0  # 0 in the first layer, 1 in the last
        fall = 1 - layer / depth if depth else 1.0  # 1 in the first layer, then towards 0
        self.max_seqlen, self.backend = max_seqlen, backend
        self._mixes_channels, self._fall = channel_mixing, fall
        place = torch.arange(d_model) / d_model
        self.mix_r = nn.Parameter(place ** (0.5 * fall))
        self.mix_k = nn.Parameter(place**fall)
        self.mix_v = nn.Parameter(place**fall + 0.3 * rise)
        self.speed = nn.Parameter(-5 + 8 * torch.linspace(0, 1, d_model) ** (0.7 + 1.3 * rise))
        zigzag = (torch.arange(d_model) + 1) % 3 - 1
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * zigzag)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def channel_mixing(self) -> nn.Module | None:
        """Return what the block has in place of its MLP, newly made; None: the MLP."""
        if not self._mixes_channels:
            return None
        return ChannelMixing(len(self.mix_k), self._fall)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return r, k, v, each (B, L, D)."""
        before = F.pad(u, (0, 0, 1, -1))  # (B, L, D)
        r = linear(before + self.mix_r * (u - before), self.receptance)
        k = linear(before + self.mix_k * (u - before), self.key)
        v = linear(before + self.mix_v * (u - before), self.value)
        return r, k, v

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        r, k, v = self._signals(u)
        wkv = decayed_average(k, v, self.bonus, self.speed.exp(), self.backend)
        out: Tensor = linear(torch.sigmoid(r) * wkv, self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the gated weights of the average: y = W_o (H(u) v), (B, D, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        r, k, _ = (x.transpose(1, 2) for x in self._signals(u))  # (B, D, L)
        lag = torch.arange(L, device=u.device)[:, None] - torch.arange(L, device=u.device)
        fall = (lag - 1) * self.speed.exp()[:, None, None]  # (D, L, L)
        exponent = k.to(self.speed.dtype)[:, :, None] - torch.where(
            lag == 0, -self.bonus[:, None, None], fall
        )
        weights = exponent.masked_fill(lag < 0, float("-inf")).softmax(-1)
        return torch.sigmoid(r)[..., None] * weights
