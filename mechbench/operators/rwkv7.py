"""Time mixing of RWKV, version 7: a delta rule with vectors in place of its scalars.

    S_t = S_{t-1} (diag(w_t) - kappa_t^T (a_t * kappa_t)) + v_t^T k_t,   y_t = S_t r_t^T
    out = W_o (g * (group_norm(y) + (r (rho * k)^T) v))

With x' = x + mu * (x_{t-1} - x), another mu for each: r, v and the key z are linear in x';
a = sigmoid(A x' + a_0), w = exp(-e^{-1/2} sigmoid(W tanh(W' x') + w_0)), g = G sigmoid(G' x') with
matrices of low rank; kappa = z * xi scaled to norm 1 in each head; k = z * (1 + (a - 1) * alpha).

Source: Peng et al. 2025 (arXiv:2503.14456), time mixing; initial values, ranks and the norm's
constant are those that the released training code (RWKV-LM) gives a first layer, or, with `depth`,
each layer of so many. Deviations: no value residual from the first layer (a layer here sees only
its input); W_o and the first factors of low-rank maps start with PyTorch's initialisation instead
of zeros; w_0 learns at the common rate (twice that in the code); the backbone's MLP takes the place
of channel mixing. O(L (chunk + d_head) D) time, O(L D log(chunk)) memory, a state of d_head^2
numbers per head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError
from mechbench.operators.base import check_seqlen, set_optim
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import heads
from mechbench.ops import (
    affine,
    dplr,
    dplr_matrix,
    linear,
    rwkv7_output,
    rwkv7_signals,
    with_earlier,
)

# Exponents of the initial mixes of each input, as released.
_MIXES = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}


@register_operator("rwkv7", source="Peng et al. 2025 (arXiv:2503.14456), version 7, time mixing")
class RWKV7(nn.Module):
    """Time mixing of RWKV-7: token shift and a generalised delta rule with decay per channel.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 64 (at least one).
        depth: layers of the model, which decides how each starts; 0: all start as a first layer.
        layer: index of its block, from 0.
        chunk: positions computed as one matrix; affects only speed.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, an option out of range, or layer not
            below depth.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Peng et al. 2025, recurrence of time mixing",
            4e-15,
            "no value residual across layers: a layer sees only its input; W_o and the first "
            "factors of low-rank maps do not start at zero; every layer starts as a first one "
            "(`depth=N`: as in a model of N layers); no token shift before the backbone's MLP",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        depth: int = 0,
        layer: int = 0,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        check_options(n_heads=n_heads, depth=depth, chunk=chunk)
        if depth and layer >= depth:
            raise ConfigError(
                f"depth is {depth}: expected at least {layer + 1}, this layer's number"
            )
        self.n_heads = heads(d_model, n_heads or max(1, d_model // 64))
        self.max_seqlen, self.chunk = max_seqlen, chunk
        D, d_head = d_model, d_model // self.n_heads
        rise = layer / max(1, depth - 1) if depth else 0.0  # 0 in the first layer, 1 in the last
        fall = 1 - layer / depth if depth else 1.0  # 1 in the first layer, then towards 0
        place = torch.arange(D) / D
        self.mix = nn.ParameterDict(
            {name: 1 - place ** (power * fall) for name, power in _MIXES.items()}
        )
        along = torch.arange(D) / max(1, D - 1)  # 0 to 1 over the channels
        inside = (2 * torch.arange(D).remainder(d_head) - (d_head - 1)) / max(1, d_head - 1)
        bow = inside * inside.abs()  # -1 to 1 over each head
        rank = max(32, 32 * round(2.5 * D**0.5 / 32))
        speed = -5.5 + 6 * along ** (1 + rise**0.3) + 2.5 * bow
        self.decay = LowRank(D, rank, "tanh", speed)
        self.rate = LowRank(D, rank, "none", -0.19 + 0.3 * bow + 0.4 * (along - 0.5))
        self.gate = LowRank(D, max(32, 32 * round(5 * D**0.5 / 32)), "sigmoid", None)
        self.remove = nn.Parameter(0.71 - 0.1 * (along - 0.5))  # xi
        self.blend = nn.Parameter(torch.full((D,), 1.02))  # alpha
        self.bonus = nn.Parameter(torch.full((self.n_heads, d_head), -0.04))  # rho
        self.bonus.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]
        self.receptance, self.key, self.value = (nn.Linear(D, D, bias=False) for _ in range(3))
        for matrix, bound in ((self.receptance, 0.5), (self.key, 0.05), (self.value, 0.5)):
            nn.init.uniform_(matrix.weight, -bound * D**-0.5, bound * D**-0.5)
        self.norm = nn.GroupNorm(self.n_heads, D, eps=1e-5 * d_head)
        nn.init.constant_(self.norm.weight, ((layer + 1) / depth) ** 0.7 if depth else 1.0)
        self.out_proj = nn.Linear(D, D, bias=False)

    def _mixed(self, u: Tensor) -> list[Tensor]:
        """Return r, z, v and what the low-rank maps of w, a and g start with, (B, L, ..) each.

        W (u + mu (u_{t-1} - u)) is one product of (u, u_{t-1}) with (W - W mu, W mu), for all six.
        """
        first = (self.receptance, self.key, self.value)
        low = (self.decay.first, self.rate.first, self.gate.first)
        weights = [matrix.weight for matrix in (*first, *low)]
        mixes = [self.mix[name].expand_as(w) for name, w in zip("rkvwag", weights, strict=True)]
        weight, sizes = torch.cat(weights), [len(w) for w in weights]
        earlier = weight * torch.cat(mixes)
        mixed = affine(with_earlier(u), torch.cat([weight - earlier, earlier], -1), None)
        return list(torch.split(mixed, sizes, -1))

    def _signals(self, u: Tensor) -> tuple[Tensor, ...]:
        """Return r, k, v, what is read and written to remove, log w: (B, H, L, d); g (B, L, D)."""
        r, z, v, w, a, g = self._mixed(u)
        r, v = (torch.unflatten(x, -1, (self.n_heads, -1)).transpose(1, 2) for x in (r, v))
        rest = rwkv7_signals(z, self.rate(a), self.decay(w), self.remove, self.blend, self.n_heads)
        k, reads, writes, log_w = rest
        return r, k, v, reads, writes, log_w, self.gate(g)

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        r, k, v, reads, writes, log_w, gate = self._signals(u)
        y = dplr(r, k, v, reads, writes, log_w, self.chunk)  # (B, H, L, d)
        y = rwkv7_output(y, r, k, v, gate, self.bonus, self.norm)
        out: Tensor = linear(y, self.out_proj)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on the values, before norm, bonus and gate, (B, H, L, L)."""
        r, k, _, reads, writes, log_w, _ = self._signals(u)
        return dplr_matrix(r, k, reads, writes, log_w)


class LowRank(nn.Module):
    """x -> second f(first x) + bias, without weight decay; the second factor starts small."""

    def __init__(self, d_model: int, rank: int, inner: str, bias: Tensor | None) -> None:
        super().__init__()
        self.inner = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "none": None}[inner]
        self.first = nn.Linear(d_model, rank, bias=False)
        self.second = nn.Linear(rank, d_model, bias=bias is not None)
        gain = max(1.0, (rank / d_model) ** 0.5)
        nn.init.orthogonal_(self.second.weight, gain=0.1 * gain)
        if bias is not None:
            self.second.bias = nn.Parameter(bias)
        set_optim(self, weight_decay=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map first x, (B, L, rank), to (B, L, D)."""
        x = x if self.inner is None else self.inner(x)
        return (
            F.linear(x, self.second.weight) if self.second.bias is None else linear(x, self.second)
        )
