"""Hyena: a recurrence of long convolutions and gates.

Projections and a short convolution give v, x^1 .. x^N; then, for n = 1 .. N,

    paper:     z^1 = v,  z^{n+1} = x^n (h^n * z^n + d^n z^n),  y = W z^{N+1}
    released:  z^1 = v,  z^{n+1} = h^n * (x^n z^n) + d^n (x^n z^n) for n < N,  y = W (x^N z^N)

Source: Poli et al. 2023, Definition 3.1 and sections 3.2 to 3.4; "released" is the authors' code,
which gates before convolving, so that order 2 has a single long convolution. Only this order of
gates and filters is the code's in variant "gate-first" (stored as "released", its older name): our
default filters are of relative time and scaled by 1 / L. With `filter=released` the whole operator
is exactly the released one, and its weights load (`mechbench.operators.hyena_weights`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mechbench.catalogue.registry import FILTERS, Entry, register_operator
from mechbench.catalogue.settings import check_options
from mechbench.errors import ConfigError, OperatorError
from mechbench.filters.base import (
    filter_depends_on_max_seqlen,
    filter_options,
    make_filter,
    own_options,
)
from mechbench.operators.base import check_seqlen, set_optim, toeplitz
from mechbench.operators.fidelity import Fidelity
from mechbench.ops import fft_conv, from_channels, hyena_mix, short_conv, to_channels

_RELEASED = "released"


def _filter_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return filter_options(options["filter"])


def _released_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return own_options(_RELEASED)


@register_operator("hyena", source="Poli et al. 2023 (arXiv:2302.10866), Definition 3.1")
class Hyena(nn.Module):
    """Gated long convolutions with implicit filters.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        order: N, number of gates; at least 1, for variant "released" at least 2.
        variant: "gate-first" (the recurrence of the authors' code; also called "released", the
            name that results store) or "paper" (Definition 3.1).
        short_filter: taps of the short convolution after the projections.
        filter: family of the long filters: "hyena" (FFN with window), "released" (the same,
            exactly as in the authors' code), "ckconv" (FFN alone), "conv1d", "fno", "ssm",
            "transfer", or one that a plugin registers.
        filter_lr: learning rate of the filter's parameters; none: the run's own, but 1e-3 for
            the poles of "ssm".
        backend: backend of the long convolution.
        filter_options: the options of the filter's family; users give them like those above.

    Raises:
        ConfigError: an order that the variant does not define, an unknown filter, or an option
            that the chosen filter does not take.
        OperatorError: the filter cannot be built.
    """

    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Poli et al. 2023: the released recurrence (`gate-first`), Definition 3.1 (`paper`)",
            2e-15,
            "filters in relative time, scaled by 1024 / L, under a window of shift 1, its rates "
            "over D channels, one sine frequency set a layer: they carry over to other lengths "
            "without training and see far",
        ),
        Fidelity(
            "released operator (heads 1, blocks 1), orders 2 to 4, weights loaded; outputs and "
            "gradients",
            4e-15,
            "the positional encoding is fixed (released: trained at a rate of 1e-5); no dropout",
            variant="filter=released",
        ),
    )

    option_groups: ClassVar = {"filter_options": _filter_options}

    @staticmethod
    def typed(options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with the variant's stored name, so that both names are one cell."""
        stored = "released" if options["variant"] == "gate-first" else options["variant"]
        return {**options, "variant": stored}

    @staticmethod
    def implied(options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a stored `hybrid` means that names no option of its Hyena.

        Alone, Hyena stores them all.
        """
        return {} if "order" in options else {"window_shift": 0.0}

    @staticmethod
    def parts(options: Mapping[str, Any]) -> list[Entry]:
        """Return the filter's family."""
        return [FILTERS.entry(options["filter"])]

    @staticmethod
    def depends_on_max_seqlen(options: Mapping[str, Any]) -> bool:
        """Return whether the filters do."""
        return filter_depends_on_max_seqlen(options["filter"], options)

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        order: int = 2,
        variant: Literal["released", "gate-first", "paper"] = "released",
        short_filter: int = 3,
        filter: str = "hyena",  # noqa: A002, the option's public name
        filter_lr: float | None = None,
        backend: str = "auto",
        filter_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_options(short_filter=short_filter, filter_lr=filter_lr)
        variant = "released" if variant == "gate-first" else variant
        least = 2 if variant == "released" else 1
        if order < least:
            raise ConfigError(
                f"order is {order}: variant {variant!r} needs at least {least}"
                + (", since its first gate has no long convolution" if least == 2 else "")
            )
        check_options(order=order)
        self.max_seqlen, self.variant = max_seqlen, variant
        self.order, self.backend = order, backend
        n_filters = order if variant == "paper" else order - 1
        self.in_proj = nn.Linear(d_model, (order + 1) * d_model)
        bound = short_filter**-0.5
        self.short_weight = nn.Parameter(
            torch.empty((order + 1) * d_model, short_filter).uniform_(-bound, bound)
        )
        self.short_bias = nn.Parameter(torch.empty((order + 1) * d_model).uniform_(-bound, bound))
        self.filter = make_filter(filter, n_filters, d_model, max_seqlen, filter_options or {})
        set_optim(self.filter, lr=filter_lr, weight_decay=0.0)
        self.skip = nn.Parameter(torch.randn(n_filters, d_model))
        self.skip.optim = {"weight_decay": 0.0}  # type: ignore[attr-defined]
        self.out_proj = nn.Linear(d_model, d_model)

    def signals(self, u: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return v and the gates [x^1, .., x^N], each (B, D, L), from u (B, L, D)."""
        p = self.in_proj(u).transpose(1, 2)  # (B, (N + 1) D, L)
        p = short_conv(p, self.short_weight.to(p.dtype), self.short_bias.to(p.dtype))
        v, *gates = p.chunk(self.order + 1, 1)
        return v, gates

    def taps(self, seqlen: int) -> Tensor:
        """Return the filters: (n_filters, D, seqlen).

        Raises:
            OperatorError: the filter's family gives taps of another shape.
        """
        h: Tensor = self.filter(seqlen)
        found, expected = tuple(getattr(h, "shape", ())), (*self.skip.shape, seqlen)
        if found != expected:
            raise OperatorError(
                f"the filter {type(self.filter).__name__} returned taps of shape {found}: "
                f"expected {expected}"
            )
        return h

    def forward(self, u: Tensor) -> Tensor:
        """Mix along the sequence: (B, L, D) -> (B, L, D).

        Raises:
            OperatorError: the filter's family gives taps of another shape.
            SeqlenError: L is above max_seqlen.
        """
        L = check_seqlen(u, self.max_seqlen)
        h = self.taps(L)  # (n_filters, D, L)
        if self.variant == "released" and self.order == 2:
            p = to_channels(u, self.in_proj.weight)  # (B, 3D, L)
            z = hyena_mix(
                p,
                self.in_proj.bias,
                self.short_weight,
                self.short_bias,
                h.squeeze(0),  # as h[0], whose gradient would be zeros and a copy
                self.skip.squeeze(0),
                self.backend,
            )
            return from_channels(z, self.out_proj.weight, self.out_proj.bias)  # (B, L, D)
        z, gates = self.signals(u)
        n_filters, last = len(h), len(h) - 1
        for n in range(n_filters):
            paper = self.variant == "paper"
            before = None if paper else gates[n]
            after = gates[n] if paper else gates[-1] if n == last else None
            z = fft_conv(z, h[n], self.skip[n], before, after, backend=self.backend)
        out: Tensor = self.out_proj(z.transpose(1, 2))  # (B, L, D)
        return out

    def mixing_matrix(self, u: Tensor) -> Tensor:
        """Return H(u) = D_x^N S_h^N ... D_x^1 S_h^1 (section 3.2): z^{N+1} = H(u) v, (B, D, L, L).

        For variant "released" it is D_x^N S_h^{N-1} D_x^{N-1} ... S_h^1 D_x^1.
        """
        L = check_seqlen(u, self.max_seqlen)
        v, gates = self.signals(u)
        h = self.taps(L)
        eye = torch.eye(L, device=u.device, dtype=h.dtype)
        H = eye.expand(*v.shape[:2], L, L)
        for n in range(len(h)):
            S = toeplitz(h[n]) + self.skip[n][:, None, None] * eye
            gate = gates[n][..., None]  # scales the rows: D_x A
            H = gate * (S @ H) if self.variant == "paper" else S @ (gate * H)
        return H if self.variant == "paper" else gates[-1][..., None] * H


class _Preset(Hyena):
    """Hyena with the filters of the released code, in one of the two recurrences.

    They are of absolute time, unscaled, under a window without a shift.
    """

    option_groups: ClassVar = {"filter_options": _released_options}
    preset: ClassVar[Literal["released", "paper"]]

    @staticmethod
    def typed(options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options as they are: there are no two names for one."""
        return dict(options)

    @staticmethod
    def parts(options: Mapping[str, Any]) -> list[Entry]:
        """Return the filter's family."""
        return [FILTERS.entry(_RELEASED)]

    @staticmethod
    def depends_on_max_seqlen(options: Mapping[str, Any]) -> bool:
        """Return whether the filters do."""
        return filter_depends_on_max_seqlen(_RELEASED, options)

    def __init__(
        self,
        d_model: int,
        max_seqlen: int,
        *,
        order: int = 2,
        short_filter: int = 3,
        filter_lr: float | None = None,
        backend: str = "auto",
        filter_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            d_model,
            max_seqlen,
            order=order,
            variant=self.preset,
            short_filter=short_filter,
            filter=_RELEASED,
            filter_lr=filter_lr,
            backend=backend,
            filter_options=filter_options,
        )


@register_operator("hyena-released", source="Poli et al. 2023 (arXiv:2302.10866), released code")
class HyenaReleased(_Preset):
    """Hyena as released: the first gate comes before the first long convolution.

    The same as `hyena` with `filter=released`; trained weights load
    (`mechbench.operators.hyena_weights`).

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        order: N, number of gates, at least 2.
        short_filter: taps of the short convolution after the projections.
        filter_lr: learning rate of the filter's parameters; none: the run's own.
        backend: backend of the long convolution.
        filter_options: the options of the filter; users give them like those above.

    Raises:
        ConfigError: an option out of range.
    """

    preset = "released"
    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Poli et al. 2023, released operator (heads 1, blocks 1)",
            4e-15,
            "the positional encoding is fixed (released: trained at a rate of 1e-5); no dropout",
        ),
    )


@register_operator("hyena-paper", source="Poli et al. 2023 (arXiv:2302.10866), Definition 3.1")
class HyenaPaper(_Preset):
    """Hyena as the paper defines it: N long convolutions, each followed by a gate.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        order: N, number of gates, at least 1.
        short_filter: taps of the short convolution after the projections.
        filter_lr: learning rate of the filter's parameters; none: the run's own.
        backend: backend of the long convolution.
        filter_options: the options of the filter; users give them like those above.

    Raises:
        ConfigError: an option out of range.
    """

    preset = "paper"
    fidelity: ClassVar[tuple[Fidelity, ...]] = (
        Fidelity(
            "Poli et al. 2023, Definition 3.1",
            2e-15,
            "filters as in the released code",
        ),
    )
