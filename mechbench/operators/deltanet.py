"""DeltaNet: linear attention whose state overwrites what a key held, instead of adding to it.

    S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,   y_t = S_t^T q_t / sqrt(d_head)
    out = W_o rms_norm(y)

q, k, v are linear in u, then pass a short convolution and silu; q and k are scaled to norm 1;
beta = sigmoid(W_b u), twice that with `allow_neg_eigval`.

Source: Yang et al. 2024 (arXiv:2406.06484), section 2.2 (the rule, that of Schlag et al. 2021,
arXiv:2102.11174) and section 3 (chunks, layer); beta up to 2, so that I - beta k k^T has
eigenvalues from -1 to 1: Grazzi et al. 2024 (arXiv:2411.12537). O(L (chunk + d_head) D) time,
O(L D) memory, a state of d_head^2 numbers per head. The scale 1 / sqrt(d_head) is the code's; the
norm takes it out again.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mechbench.catalogue.registry import register_operator
from mechbench.operators.delta_layer import DeltaLayer, Signals
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import unit
from mechbench.ops.backends import BackendName


@register_operator("deltanet", source="Yang et al. 2024 (arXiv:2406.06484), sections 2 and 3")
class DeltaNet(DeltaLayer):
    """Delta rule without decay, with short convolutions, normalised keys and an output norm.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        n_heads: heads; 0: as many as make d_head 32 (at least one).
        expand_v: width of the values, in multiples of d_model.
        short_filter: taps of the short convolutions on q, k and v.
        allow_neg_eigval: whether beta reaches 2 instead of 1, so that a step may turn what a key
            held into its negative.
        chunk: positions computed as one matrix; affects only speed.
        backend: of the recurrence: "auto" (our kernels on a GPU, else PyTorch), or "triton",
            "torch" or "fla" (flash-linear-attention) by name; affects only speed and rounding.

    Raises:
        ConfigError: d_model is not a multiple of n_heads, or an option out of range.
    """

    fidelity: ClassVar = (
        Fidelity("Yang et al. 2024, recurrence", 3e-15, "heads of 32 channels by default"),
        Fidelity(
            "the same with beta up to 2 (Grazzi et al. 2024)",
            3e-15,
            "heads of 32 channels by default",
            variant="allow_neg_eigval=true",
        ),
    )

    implied: ClassVar = {"backend": "auto"}

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        n_heads: int = 0,
        expand_v: int = 1,
        short_filter: int = 4,
        allow_neg_eigval: bool = False,
        chunk: int = 64,
        backend: BackendName = "auto",
    ) -> None:
        super().__init__(
            d_model,
            max_seqlen,
            n_heads=n_heads,
            expand_v=expand_v,
            short_filter=short_filter,
            chunk=chunk,
            backend=backend,
            allow_neg_eigval=allow_neg_eigval,
            rest=lambda heads: (heads,),  # logits of beta
        )

    def signals(self, u: Tensor) -> Signals:
        """Return what the rule is given for u (B, L, D)."""
        q, k, v, (b,) = self.project(u)
        beta = self.steps(b)
        q = unit(q, q.shape[-1] ** -0.5)
        return Signals(q, unit(k), v, None, beta, None)
