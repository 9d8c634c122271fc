"""DeltaProduct: several steps of the delta rule for every token, each with its own key and value.

    S_{t,0} = alpha_t S_{t-1,n}
    S_{t,j} = (I - beta_{t,j} k_{t,j} k_{t,j}^T) S_{t,j-1} + beta_{t,j} k_{t,j} v_{t,j}^T
    y_t = S_{t,n}^T q_t / sqrt(d_head),   out = W_o rms_norm(y)

q and every k_j and v_j are linear in u, then pass a short convolution and silu; q and k_j are
scaled to norm 1; beta_j = 2 sigmoid(W_j u), so that a token's transition is a product of n
generalised reflections; alpha = 1 or, with `gated`, exp(-rate softplus(W_a u + bias)).

Source: Siems et al. 2025 (arXiv:2502.10297), with the layer (no output gate, values as wide as
keys) of the configurations released with it. With n = 1 and beta at most 1 this is DeltaNet. O(n L
(chunk + d_head) D) time, O(n L D) memory, a state of d_head^2 numbers per head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.decay import Decay
from mechbench.operators.delta_layer import DeltaLayer, Signals
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import delta_product, delta_rule_matrix, unit
from mechbench.ops.backends import BackendName

_KEPT = "heads of 32 channels by default; PyTorch's initialisation"


@register_operator("deltaproduct", source="Siems et al. 2025 (arXiv:2502.10297)")
class DeltaProduct(DeltaLayer):
    """Several delta-rule steps a token, so that a transition is a product of reflections.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_householder: n, steps of a token, each with its own key, value and beta.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        expand_v: width of the values, in multiples of d_model.
        short_filter: taps of the short convolutions on q, k and v.
        allow_neg_eigval: whether beta reaches 2 instead of 1, so that a step may turn what a key
            held into its negative.
        gated: whether the state decays once a token, at a rate the input sets.
        chunk: steps computed as one matrix; affects only speed.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    decay: Decay
    fidelity: ClassVar = (
        Fidelity("Siems et al. 2025, recurrence", 5e-15, _KEPT),
        Fidelity("the same with a forget gate", 8e-15, _KEPT, variant="gated=true"),
    )

    implied: ClassVar = {"backend": "auto"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_householder: int = 2,
        n_heads: int = 0,
        expand_v: int = 1,
        short_filter: int = 4,
        allow_neg_eigval: bool = True,
        gated: bool = False,
        chunk: int = 64,
        backend: BackendName = "auto",
    ) -> None:
        check_options(n_householder=n_householder)
        n = n_householder
        super().__init__(
            d_model,
            max_seqlen,
            n_heads=n_heads,
            expand_v=expand_v,
            short_filter=short_filter,
            chunk=chunk,
            backend=backend,
            allow_neg_eigval=allow_neg_eigval,
            rest=lambda heads: (heads if gated else 0, n * heads),  # logits of alpha, of beta
            decay=(lambda heads: Decay(heads, 0.0)) if gated else None,
            n_steps=n,
        )
        self.n_householder, self.gated = n, gated

    def signals(self, u: Tensor) -> Signals:
        """Return what the rule is given for u (B, L, D): n keys and values a token, n L decays."""
        n = self.n_householder
        q, k, v, (a, b) = self.project(u)
        k, v = (torch.unflatten(x, -1, (n, -1)) for x in (k, v))  # (B, H, L, n, d)
        beta = self.steps(torch.unflatten(b, -1, (n, -1)).flatten(1, 2))  # (B, H, L n)
        log_alpha = None
        if self.gated:
            first = self.decay(a.transpose(1, 2))[1][..., None]  # (B, H, L, 1)
            log_alpha = F.pad(first, (0, n - 1)).flatten(2)
        return Signals(unit(q, q.shape[-1] ** -0.5), unit(k), v, log_alpha, beta, None)

    def rule(self, s: Signals) -> Tensor:
        """Return y, (B, H, L, P)."""
        return delta_product(s.q, s.k, s.v, s.log_decay, s.beta, self.chunk, self.backend)

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return the weights on the values before the norm, (B, H n, L, L): n matrices a head.

        Step j of head h has the matrix h n + j; its values are the steps j of that head's.
        """
        n, s = self.n_householder, self.signals(u)
        q = F.pad(s.q[..., None, :], (0, 0, n - 1, 0)).flatten(2, 3)
        rows = delta_rule_matrix(q, s.k.flatten(2, 3), s.log_decay, s.beta)[:, :, n - 1 :: n]
        each = torch.unflatten(rows, -1, (-1, n))  # (B, H, L, L, n)
        return each.movedim(-1, 2).flatten(1, 2)
