"""minGRU: a gated recurrent unit whose gate and candidate do not see the state.

    h_t = (1 - z_t) h_{t-1} + z_t g(c_t),   z = sigmoid(W_z u),   c = W_c u,   y = W_o h

with h_{-1} = 0 and g(x) = x + 1/2 for x >= 0, else sigmoid(x). A channel of the state is an average
of past candidates, so all of it is computed by a scan.
Source: Feng et al. 2024 (arXiv:2410.01201), minGRU, and g, which keeps states positive, from the
log-space form of its appendix B. They sum logarithms of the terms. Here gates and terms are scanned
as they are (`mechbench.ops.diagonal_scan`): the same function, without a difference of long sums of
logarithms, and candidates may be negative, too (`candidate=linear`, as the minGRU without
logarithms has it). Deviations: the state starts at zero; an output projection also where the state
is no wider than u, because states are positive and what a block adds should not be. No convolution
before it and no dropout: those are of their blocks.
O(L E) time in O(log L) steps, a state of E = expand D numbers.
Agrees with the recurrence to 4e-16 in float64.
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
from mechbench.ops import diagonal_scan, diagonal_scan_matrix, linear


@register_operator("mingru", source="Feng et al. 2024 (arXiv:2410.01201), minGRU")
class MinGRU(nn.Module):
    """Minimal gated recurrent unit: one gate, and no state in it.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        expand: channels of the state, in multiples of d_model.
        candidate: "positive": g(c), see above; "linear": c itself.

    Raises:
        ConfigError: expand out of range.
    """

    fidelity: ClassVar = (
        Fidelity(
            "Feng et al. 2024, recurrence of minGRU, with g of the log-space form (appendix B)",
            8e-16,
            "the state starts at zero; an output projection whatever the width of the state, so "
            "that what is added may be negative; no convolution before it",
        ),
        Fidelity(
            "Feng et al. 2024, recurrence of minGRU",
            1e-15,
            "the same",
            variant="candidate=linear",
        ),
    )

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        expand: int = 1,
        candidate: Literal["positive", "linear"] = "positive",
    ) -> None:
        super().__init__()
        check_options(expand=expand)
        self.max_seqlen, self.positive = max_seqlen, candidate == "positive"
        self.in_proj = nn.Linear(d_model, 2 * expand * d_model)  # logits of the gate, candidate
        self.out_proj = nn.Linear(expand * d_model, d_model)

    def _signals(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gate's logits and the candidates, (B, L, E) each, float32 or wider."""
        both = linear(u, self.in_proj)
        logits, c = both.to(torch.promote_types(both.dtype, torch.float32)).chunk(2, -1)
        return logits, torch.where(c >= 0, c + 0.5, torch.sigmoid(c)) if self.positive else c

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        logits, c = self._signals(u)
        # 1 - sigmoid(x) as sigmoid(-x): exact where the gate is nearly open.
        h = diagonal_scan(torch.sigmoid(-logits), torch.sigmoid(logits) * c)  # (B, L, E)
        out: Tensor = linear(h.to(u.dtype), self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights of the candidates in the states, y = W_o (H(u) g(c)), (B, E, L, L)."""
        check_seqlen(u, self.max_seqlen)
        logits, _ = self._signals(u)
        gate = torch.sigmoid(logits).transpose(1, 2)  # (B, E, L)
        return diagonal_scan_matrix(F.logsigmoid(-logits)) * gate[..., None, :]
