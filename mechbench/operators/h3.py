"""H3: a shift and a diagonal state space between two gates.

    k' = shift(k) + d_k k,   z = k' v,   y = W (q (h * z + d z))

with q, k, v linear maps of u, shift a state space whose state is the last `d_state` inputs (a
filter of as many taps) and h the impulse response of a diagonal state
space. In Hyena's terms: order 2 with these filters (Poli et al. 2023, remark 3.2).
Source: Fu et al. 2023 (arXiv:2212.14052), section 3.1 and algorithm 1. State spaces as
released (`mechbench.operators.h3_states`): bilinear, with trained input matrices. Deviations: heads
of one channel (the code's default), so k' v is a plain rather than an outer product; A, B of the
diagonal state space and dt have a learning rate of 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.filters.explicit import ExplicitFilter
from mechbench.filters.ssm import SSMFilter
from mechbench.operators.base import check_seqlen, toeplitz
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.h3_states import BilinearStates, ShiftStates
from mechbench.ops import fft_conv, linear


@register_operator("h3", source="Fu et al. 2023 (arXiv:2212.14052), algorithm 1")
class H3(nn.Module):
    """Shift state space on keys, diagonal state space on key times value, gated by queries.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        d_state: dimensions of a channel's state in both state spaces; even.
        variant: "released"; or "plain": a zero-order hold and fixed input matrices.
        backend: backend of the convolutions.

    Raises:
        ConfigError: d_state odd or below 2.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "released state spaces (bilinear, trained inputs), recurrences",
            1e-15,
            "heads of one channel (the code's default); learning rate 1e-3 for A, B and dt of "
            "the diagonal state space; `variant=plain` is the earlier zero-order hold with fixed "
            "inputs",
        ),
    )

    implied: ClassVar = {"variant": "plain"}

    @staticmethod
    def depends_on_max_seqlen(options: Mapping[str, Any]) -> bool:
        """Return whether the shift has a parameter a tap, and no more taps than positions."""
        return bool(options.get("variant", "plain") == "plain")

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        d_state: int = 64,
        variant: Literal["released", "plain"] = "released",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.max_seqlen, self.backend = max_seqlen, backend
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        self.diagonal: nn.Module
        self.shift: nn.Module
        if variant == "released":
            self.diagonal = BilinearStates(d_model, max_seqlen, d_state=d_state)
            self.shift = ShiftStates(d_model, d_state=d_state)
        else:
            self.diagonal = SSMFilter(1, d_model, max_seqlen, d_state=d_state)
            self.shift = ExplicitFilter(1, d_model, max_seqlen, n_taps=d_state)
        self.shift_skip = nn.Parameter(torch.randn(d_model))
        self.skip = nn.Parameter(torch.randn(d_model))
        self.out_proj = nn.Linear(d_model, d_model)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k' and v, each (B, D, L), from u (B, L, D)."""
        q, k, v = (x.transpose(1, 2) for x in linear(u, self.in_proj).chunk(3, -1))
        taps = self.shift(u.shape[1])[0]  # (D, L)
        return q, fft_conv(k, taps, self.shift_skip, backend=self.backend), v

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        L = check_seqlen(u, self.max_seqlen)
        q, k, v = self._signals(u)
        h = self.diagonal(L)[0]  # (D, L)
        y = fft_conv(v, h, self.skip, k, q, backend=self.backend)  # (B, D, L)
        out: Tensor = linear(y.transpose(1, 2), self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return H(u) = D_q S_h D_k' with y = W (H(u) v), (B, D, L, L)."""
        L = check_seqlen(u, self.max_seqlen)
        q, k, _ = self._signals(u)
        S = toeplitz(self.diagonal(L)[0])  # (D, L, L)
        S = S + self.skip[:, None, None] * torch.eye(L, device=u.device)
        return q[..., None] * S * k[..., None, :]
