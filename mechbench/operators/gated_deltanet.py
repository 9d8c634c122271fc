"""Gated DeltaNet: a state that decays, and overwrites what a key held.

    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T
    y_t = S_t^T q_t / sqrt(d_head)
    out = W_o (rms_norm(y) silu(W_g u))

q, k, v are linear in u, then pass a short convolution and silu; q and k are scaled to norm 1;
beta = sigmoid(W_b u), twice that with `allow_neg_eigval`;
alpha = exp(-rate softplus(W_a u + bias)).

Source: Yang, Kautz & Hatamizadeh 2024 (arXiv:2412.06464), equation 10, section 3.3 (chunks) and
section 3.4 with figure 1 (layer); values twice as wide as keys as in the code
(flash-linear-attention); beta up to 2: Grazzi et al. 2024 (arXiv:2411.12537).
O(L (chunk + d_head) D) time, O(L D) memory, a state of 2 d_head^2 numbers per head.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mechbench.catalogue.registry import register_operator
from mechbench.catalogue.settings import check_options
from mechbench.operators.decay import Decay
from mechbench.operators.delta_layer import DeltaLayer, Signals
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import unit
from mechbench.ops.backends import BackendName


@register_operator(
    "gated-deltanet", source="Yang, Kautz & Hatamizadeh 2024 (arXiv:2412.06464), section 3"
)
class GatedDeltaNet(DeltaLayer):
    """Gated delta rule with short convolutions, normalised keys and a gated output norm.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        expand_v: width of the values, in multiples of d_model.
        short_filter: taps of the short convolutions on q, k and v.
        min_rate: initial rates are uniform between this and 16; 0 as in flash-linear-attention.
        allow_neg_eigval: whether beta reaches 2 instead of 1, so that a step may turn what a key
            held into its negative.
        chunk: positions computed as one matrix; affects only speed.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Yang et al. 2024, equation 10",
            6e-15,
            "two values a key channel and heads of 32 by default; rates start at U(0, 16) as in "
            "flash-linear-attention",
        ),
    )

    decay: Decay
    implied: ClassVar = {"min_rate": 1.0, "allow_neg_eigval": False, "backend": "auto"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        expand_v: int = 2,
        short_filter: int = 4,
        min_rate: float = 0.0,
        allow_neg_eigval: bool = False,
        chunk: int = 64,
        backend: BackendName = "auto",
    ) -> None:
        check_options(expand_v=expand_v, min_rate=min_rate)
        super().__init__(
            d_model,
            max_seqlen,
            n_heads=n_heads,
            expand_v=expand_v,
            short_filter=short_filter,
            chunk=chunk,
            backend=backend,
            allow_neg_eigval=allow_neg_eigval,
            rest=lambda heads: (expand_v * d_model, heads, heads),  # gate, logits of alpha, of beta
            decay=lambda heads: Decay(heads, min_rate),
        )

    def signals(self, u: Tensor) -> Signals:
        """Return what the rule is given for u (B, L, D)."""
        q, k, v, (gate, a, b) = self.project(u)
        _, log_alpha = self.decay(a.transpose(1, 2))
        q = unit(q, q.shape[-1] ** -0.5)
        return Signals(q, unit(k), v, log_alpha, self.steps(b), gate)
