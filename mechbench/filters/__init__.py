"""Filter families of the Hyena recurrence, one file each: modules that give (N, D, L) taps.

A file declares FAMILIES, {name: factory(n_filters, d_model, max_seqlen, *, options)}; that is the
whole registration. What the factory makes maps a length L <= max_seqlen to taps (N, D, L) in
float32 or wider, also under autocast. Where weights or taps change with max_seqlen, the factory has
an attribute `depends_on_max_seqlen`, as an operator has.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache

from torch import nn

from mechbench.errors import ConfigError, nearest


@cache
def families() -> dict[str, Callable[..., nn.Module]]:
    """Return the factories by the name of their family."""
    found: dict[str, Callable[..., nn.Module]] = {}
    for info in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{info.name}").FAMILIES
    return dict(sorted(found.items()))


def make_filter(
    family: str, n_filters: int, d_model: int, max_seqlen: int, options: Mapping[str, object]
) -> nn.Module:
    """Build `n_filters` filters of `d_model` channels.

    Args:
        family: one of `families()`.
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        options: the options of all families by name; the family takes its own.

    Raises:
        ConfigError: unknown family, a value out of range, or an option of another family that
            stands at something else than its default: it would have no effect.
    """
    known = families()
    if family not in known:
        raise ConfigError(f"unknown filter {family!r}: {nearest(family, known)}")
    taken = _defaults(known[family])
    defaults = {key: value for make in known.values() for key, value in _defaults(make).items()}
    for key, value in options.items():
        if key not in taken and value != defaults.get(key, value):
            raise ConfigError(
                f"option {key!r} has no effect on filter {family!r}, which takes: "
                + (", ".join(sorted(taken)) or "(none)")
            )
    own = {key: value for key, value in options.items() if key in taken}
    return known[family](n_filters, d_model, max_seqlen, **own)


def filter_depends_on_max_seqlen(family: str, options: Mapping[str, object]) -> bool:
    """Return whether a family's filter for a longer input is another filter."""
    declared = getattr(families().get(family), "depends_on_max_seqlen", False)
    return bool(declared(options) if callable(declared) else declared)


def _defaults(factory: Callable[..., nn.Module]) -> dict[str, object]:
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
