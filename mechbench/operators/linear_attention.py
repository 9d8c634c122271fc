"""Linear attention: a kernel in place of the softmax, with a normaliser.

    y_t = W (sum_{s <= t} (R_t phi(q_t)) . (R_s phi(k_s)) v_s) / (sum_{s <= t} phi(q_t) . phi(k_s))

Source: Katharopoulos et al. 2020, equations 7, 9 and 18, phi = elu + 1. It has no notion of
position, so numerators are rotated as in Su et al. 2021, equation 19. O(L D d_head) time, O(L D)
memory, a state of d_head^2 numbers per head. As in the code released with it, a small constant
is added to the normaliser. Deviation: phi is computed as exp(min(x, 0)) + max(x, 0), because
elu(x) + 1 is exactly 0 in float32 below -17 and loses digits long before.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.base import check_seqlen
from mechbench.operators.fidelity import Fidelity
from mechbench.operators.multihead import heads
from mechbench.ops import decay_attention, decay_attention_matrix, linear, rotary
from mechbench.ops.backends import BackendName


@register_operator(
    "linear-attention", source="Katharopoulos et al. 2020 (arXiv:2006.16236), section 3.2"
)
class LinearAttention(nn.Module):
    """Causal linear attention (elu + 1), normalised, with rotary positions.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        rotary_base: base of the rotary wavelengths; 0: no positions, as published.
        eps: added to the normaliser; 0: none, and phi is computed as elu + 1, which gives NaN
            where all features of a query vanish.
        chunk: positions computed as one matrix; affects only speed.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.

    Raises:
        ConfigError: d_model is not an even multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Katharopoulos et al. 2020, equations 7, 9, 18",
            9e-16,
            "rotary positions on the numerator (`rotary_base=0`: none, as published); phi "
            "computed without cancellation; 1e-6 added to the normaliser, as in the code",
        ),
    )

    implied: ClassVar = {"eps": 0.0, "backend": "auto"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        rotary_base: float = 10_000.0,
        eps: float = 1e-6,
        chunk: int = 64,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__()
        check_options(chunk=chunk, rotary_base=rotary_base, eps=eps)
        self.eps, self.backend = eps, backend
        self.n_heads = heads(d_model, n_heads, even=True)
        self.max_seqlen, self.rotary_base, self.chunk = max_seqlen, rotary_base, chunk
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def _phi(self, x: Tensor) -> Tensor:
        return x.clamp_max(0).exp() + x.relu() if self.eps else F.elu(x) + 1

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return decay_attention(q, k, v, chunk=self.chunk, backend=self.backend)

    def _features(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return rotated phi(q) and phi(k), v, each (B, H, L, d), and the normaliser (.., 1)."""
        qkv = torch.unflatten(linear(u, self.qkv), -1, (3, self.n_heads, -1))  # (B, L, 3, H, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, d) each
        wide = torch.promote_types(q.dtype, torch.float32)  # for sums over a whole sequence
        q, k = self._phi(q.to(wide)), self._phi(k.to(wide))
        ones = torch.ones_like(q[..., :1])
        total = self._attend(q, k, ones) + self.eps  # (B, H, L, 1)
        if self.rotary_base:
            q, k = rotary(q, self.rotary_base), rotary(k, self.rotary_base)
        return q, k, v, total

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            SeqlenError: L is above max_seqlen.
        """
        check_seqlen(u, self.max_seqlen)
        q, k, v, total = self._features(u)
        y = self._attend(q, k, v.to(q.dtype)) / total  # (B, H, L, d)
        out: Tensor = linear(y.to(v.dtype).transpose(1, 2).flatten(2), self.out_proj)  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the normalised weights, (B, H, L, L)."""
        q, k, _, total = self._features(u)
        return decay_attention_matrix(q, k) / total
