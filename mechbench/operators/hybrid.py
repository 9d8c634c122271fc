"""Different operators in different layers: layer i uses entry i of a repeating pattern.

Source: Fu et al. 2023 (H3, arXiv:2212.14052), section 3.3, and Poli et al. 2024 (arXiv:2403.17844),
section 4, for striped models of attention and cheaper operators.

Options of an operator in the pattern are prefixed with its name: `pattern=hyena,attention` with
`hyena.order=3`. If the pattern is longer than the model is deep, its end is unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mechbench.catalogue.registry import Entry, register_operator
from mechbench.errors import ConfigError, nearest
from mechbench.operators.base import (
    components_used,
    depends_on_max_seqlen,
    implied_options,
    make_operator,
    operator_options,
)
from mechbench.operators.fidelity import Fidelity


@register_operator("hybrid", source="Fu et al. 2023 (arXiv:2212.14052), section 3.3")
def hybrid(
    d_model: int,
    max_seqlen: int,
    *,
    pattern: str = "hyena,attention",
    layer: int = 0,
    **options: Any,
) -> nn.Module:
    """Alternating operators, layer by layer.

    Args:
        d_model: D, channels.
        max_seqlen: longest input, in tokens.
        pattern: names of operators, separated by commas.
        layer: index of its block, from 0.
        options: NAME.OPTION: an option of the operator NAME in the pattern.

    Raises:
        ConfigError: an operator or option is unknown, or an option's NAME is not in the pattern.
    """
    names = _pattern(pattern)
    resolved = _resolved(names, options)
    name = names[layer % len(names)]
    return make_operator(
        name, d_model=d_model, max_seqlen=max_seqlen, layer=layer, **resolved[name]
    )


def typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, those of the pattern's operators converted by their own signatures.

    Raises:
        ConfigError: as `hybrid`.
    """
    given = {key: value for key, value in options.items() if key != "pattern"}
    resolved = _resolved(_pattern(options["pattern"]), given)
    for key in (*given, *implied(options)):
        name, _, option = key.rpartition(".")
        given[key] = resolved[name][option]
    return {**options, **given}


def implied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stored options of the pattern's operators imply, see `implied_options`."""
    if "pattern" not in options:  # of a damaged result
        return {}
    return {
        f"{name}.{option}": value
        for name in dict.fromkeys(_pattern(options["pattern"]))
        for option, value in implied_options(name, options).items()
    }


def parts(options: Mapping[str, Any]) -> list[Entry]:
    """Return the operators of the pattern, each with what it is made of.

    Raises:
        ConfigError: as `hybrid`.
    """
    given = {key: value for key, value in options.items() if key != "pattern"}
    names = _pattern(options["pattern"])
    resolved = _resolved(names, given)
    return [entry for name in names for entry in components_used(name, resolved[name])]


def _pattern(pattern: object) -> list[str]:
    """Return the names of a pattern.

    Raises:
        ConfigError: there are no names, or `hybrid` is among them.
    """
    names = [name.strip() for name in str(pattern).split(",")]
    if not all(names) or "hybrid" in names:
        raise ConfigError(
            f"pattern is {pattern!r}: expected names of other operators, separated by commas"
        )
    return names


def _resolved(names: list[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every operator's options, not only one layer's, so that mistakes show at once.

    Raises:
        ConfigError: an operator or option is unknown, or an option's name is not in the pattern.
    """
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        name, _, option = key.rpartition(".")
        if name not in own:
            known = [f"{known}.{option}" for known in own]
            raise ConfigError(f"operator 'hybrid' has no option {key!r}: {nearest(key, known)}")
        own[name][option] = value
    return {name: operator_options(name, given) for name, given in own.items()}


def _depends(options: Mapping[str, Any]) -> bool:
    given = {key: value for key, value in options.items() if key != "pattern"}
    resolved = _resolved(_pattern(options["pattern"]), given)
    return any(depends_on_max_seqlen(name, own) for name, own in resolved.items())


hybrid.parts = parts  # type: ignore[attr-defined]  # read by `components_used`
hybrid.depends_on_max_seqlen = _depends  # type: ignore[attr-defined]
hybrid.fidelity = (Fidelity("its parts", None, "those of its parts"),)  # type: ignore[attr-defined]
hybrid.implied = implied  # type: ignore[attr-defined]  # read by `implied_options`
hybrid.typed = typed  # type: ignore[attr-defined]  # read by `operator_options`
