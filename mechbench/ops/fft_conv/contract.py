"""What a backend of the long convolution provides; each is a module in the folder `backends`."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Backend(Protocol):
    """A module `NAME_backend`; adding the file is all it takes to register it."""

    PRIORITY: int  # `auto` takes the backend of highest priority that supports the inputs

    def unsupported(self, u: Tensor, h: Tensor) -> str | None:
        """Say why the backend cannot take these inputs; None if it can."""


@runtime_checkable
class Whole(Protocol):
    """What a backend that computes gates and skip term itself provides in addition."""

    def conv(
        self,
        u: Tensor,
        h: Tensor,
        skip: Tensor | None,
        pre_gate: Tensor | None,
        post_gate: Tensor | None,
    ) -> Tensor:
        """Compute `mechbench.ops.fft_conv` on inputs that it supports, with all gradients."""


@runtime_checkable
class Core(Protocol):
    """What every other backend provides in addition: the bare convolution.

    `mechbench.ops.fft_conv.core` puts gates and skip term around it, and `mechbench.ops.hyena_mix`
    those of an operator, fused.
    """

    ANY_SEQLEN: bool  # whether a length just above a power of two costs little more than that one
    TAILS: bool  # whether it sums the few outputs beyond a power of two itself (`core.split`)

    def core_forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return h * v (B, D, L) in v's dtype, and tensors to keep for the backward.

        Rows of v may have a stride above L; the result is contiguous.
        """

    def core_backward(
        self, dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of v, in its dtype, and of h (D, K), in its dtype."""


class Projections(NamedTuple):
    """The projections of an order-2 Hyena with their short convolutions of three taps, float32."""

    p: Tensor  # (B, 3D, L) of v, x^1 and x^2; L of stride 1
    taps: Tensor  # (3D, 3), the tap of lag 0 first
    bias: Tensor  # (3D,)
    shift: Tensor  # (3D,), added to p before


@runtime_checkable
class Mixing(Core, Protocol):
    """What a core may provide in addition: gates and skip term of an order-2 Hyena in its kernels.

    With s(p) the short convolution: w = s(p_v) s(p_x1), z = h * w, y = s(p_x2) (z + skip w).
    """

    def mixes(self, p: Tensor) -> int:
        """Return for how many tokens of projections p (B, 3D, L), from the first on; 0 for none.

        The caller computes w, y and dz of those that are left.
        """

    def mix_forward(
        self,
        around: Projections,
        skip: Tensor,
        h: Tensor,
        y: Tensor,
        late: Tensor,
        keep: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Write y (B, D, L) as far as `mixes` says; return z, and what to keep for a backward.

        `late` (B, D, R) is w of the tokens that are left. z is (B, D, L or more), contiguous.
        """

    def mix_backward(
        self,
        around: Projections,
        dy: Tensor,
        late: Tensor,
        n_taps: int,
        kept: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of w, in memory as z is, and of h (D, n_taps), in float32.

        `late` (B, D, R) is dz of the tokens that are left.
        """
