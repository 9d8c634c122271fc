"""How a filter is built by the name of its family, and which options belong to it.

A family is a class or factory registered with `register_filter`, here or in a plugin:
factory(n_filters, d_model, max_seqlen, *, its options). The module it returns maps a length
L <= max_seqlen to taps (N, D, L) in float32 or wider, also under autocast. If weights or taps
change with max_seqlen, the factory has an attribute `depends_on_max_seqlen`, like an operator: a
bool, or a function of the family's own options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mechbench.catalogue.options import signature_options
from mechbench.catalogue.registry import FILTERS
from mechbench.errors import ConfigError, MechbenchError, OperatorError, nearest

RESERVED = ("n_filters", "d_model", "max_seqlen")  # arguments of a factory, never options
# The options of these families are part of every stored configuration of Hyena, whichever family it
# uses, and so of all its cell ids. Those of any other family are stored only where it is chosen.
_ALWAYS = ("ckconv", "conv1d", "fno", "hyena", "ssm", "transfer")


def own_options(family: str) -> dict[str, Any]:
    """Return {option: inspect.Parameter} of a family.

    Raises:
        ConfigError: unknown family.
        PluginError: it cannot be loaded.
    """
    options = signature_options(FILTERS.load(family), RESERVED)
    return {key: value for key, value in options.items() if key != "**"}


def filter_options(family: str) -> dict[str, Any]:
    """Return {option: inspect.Parameter} of every option that such a configuration stores.

    Where another family has an option of the same name, this family's own takes precedence.

    Raises:
        ConfigError: unknown family.
        PluginError: it cannot be loaded.
    """
    found = own_options(family)
    for name in _ALWAYS:
        found = own_options(name) | found
    return found


def make_filter(
    family: str, n_filters: int, d_model: int, max_seqlen: int, options: Mapping[str, Any]
) -> nn.Module:
    """Build `n_filters` filters of `d_model` channels.

    Args:
        family: a registered name.
        n_filters: N, long convolutions in the operator.
        d_model: D, channels.
        max_seqlen: longest filter, in taps.
        options: some of those in `filter_options`, by name; the family takes its own.

    Raises:
        ConfigError: unknown family or option, a value out of range, or an option of another family
            with a value other than its default, which would have no effect.
        OperatorError: the family's constructor raised, or returned something other than an
            nn.Module.
        PluginError: the family cannot be loaded.
    """
    taken, known = own_options(family), filter_options(family)
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"filter {family!r} has no option {key!r}: {nearest(key, taken)}")
        if key not in taken and value not in _defaults(key):
            raise ConfigError(
                f"option {key!r} has no effect on filter {family!r}, which takes: "
                + (", ".join(sorted(taken)) or "(none)")
            )
    own = {key: value for key, value in options.items() if key in taken}
    try:
        made = FILTERS.load(family)(n_filters, d_model, max_seqlen, **own)
    except MechbenchError:
        raise
    except (Exception, SystemExit) as error:
        if FILTERS.entry(family).origin == "built-in":
            raise
        text = " ".join(str(error).split())
        raise OperatorError(
            f"filter {family!r} raised {type(error).__name__} when built: {text}"
        ) from error
    if not isinstance(made, nn.Module):
        raise OperatorError(
            f"filter {family!r} gave a {type(made).__name__}: expected a torch.nn.Module"
        )
    return made


def _defaults(key: str) -> list[Any]:
    """Return the defaults of an option: configurations store those of other families, too."""
    families = (own_options(family) for family in FILTERS.built_in())
    return [options[key].default for options in families if key in options]


def filter_depends_on_max_seqlen(family: str, options: Mapping[str, Any]) -> bool:
    """Return whether a family's filter changes when it is built for longer inputs.

    Raises:
        ConfigError: unknown family.
    """
    declared = getattr(FILTERS.load(family), "depends_on_max_seqlen", False)
    own = {key: options[key] for key in own_options(family)}
    return bool(declared(own) if callable(declared) else declared)
