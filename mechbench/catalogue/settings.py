"""Validation of settings: type and bounds, the same for Python calls and commands. No torch.

The command line, Python calls and suites all pass through `setting`. So all refuse a value in the
same words, and all turn an accepted one into the same Python value: 20000, 2e4 and NumPy's 20000
become the int 20000, a whole learning rate becomes a float. This is what makes equal settings one
cell (`mechbench.record.config.Config.cell_id`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from mechbench.catalogue.bounds import OPTIONS, SETTINGS, Bound, Product, over
from mechbench.errors import ConfigError

# Settings that are not numbers, and what messages call their types.
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "a mapping of names to values",
    list: "a list of lengths",
}
_OTHERS: dict[str, Any] = {
    **dict.fromkeys(
        ("operator", "task", "device", "dtype", "device_type", "curriculum", "schedule", "loss_on"),
        str,
    ),
    **dict.fromkeys(("allow_noncausal", "resume", "quiet"), bool),
    **dict.fromkeys(("operator_options", "task_options"), dict),
    "eval_seqlens": list,
}
_AMOUNTS = ("budget_tokens", "budget_sequences")  # that may be given as 20M
_SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}
_PLAIN = (str, int, float, bool, list, tuple, dict)
_SHOWN = 60  # characters of a value in a message


def setting(name: str, value: Any) -> Any:
    """Return `value`, converted to the type of the setting `name`.

    Raises:
        ConfigError: it has another type, or lies outside its bound.
    """
    return _checked(name, value, SETTINGS.get(name))


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values`, each as `setting` returns it; much faster than calling that for each.

    Raises:
        ConfigError: one has another type, or lies outside its bound.
    """
    from pydantic import ValidationError

    try:
        return _together(tuple(values))(values)
    except ValidationError:
        return {name: setting(name, value) for name, value in values.items()}


def check_options(**options: Any) -> None:
    """Check options of a built-in operator or filter, each by its own bound; None passes.

    Raises:
        ConfigError: one has another type, or lies outside its bound.
    """
    for name, value in options.items():
        if value is not None:
            _checked(name, value, OPTIONS[name])


def check_product(product: Product, **sizes: int) -> None:
    """Check sizes that are fine alone but whose product may be too large.

    Raises:
        ConfigError: their product is above the bound.
    """
    n = over(product, *sizes.values())
    if n:
        given = " x ".join(f"{name} {size}" for name, size in sizes.items())
        raise ConfigError(
            f"{given} gives {shown(n)} {product.what}: expected at most {product.most} "
            f"({product.why})"
        )


def check_call(*, out: Any, checkpoint_s: Any, data_parallel: Any, resume: Any, quiet: Any) -> None:
    """Check what `mechbench.run` takes besides the configuration.

    Raises:
        ConfigError: one has another type, or lies outside its bound.
    """
    path_of("out", out)
    setting("checkpoint_s", checkpoint_s)
    setting("data_parallel", data_parallel)
    setting("resume", resume)
    if quiet is not None:
        setting("quiet", quiet)


def path_of(name: str, value: Any) -> Path:
    """Return `value` as a path; "~" is one's home.

    Raises:
        ConfigError: not a path, or not a possible file name; `name` says what it was for.
    """
    try:
        text = os.fspath(value)
        fits = isinstance(text, str) and b"\x00" not in os.fsencode(text)
    except (TypeError, ValueError):  # no path; a lone surrogate
        fits = False
    if not fits:
        raise ConfigError(f"{name} is {shown(value)}: expected a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # "~name", and nobody is called so
        return Path(text)


def plain(value: Any) -> Any:
    """Return numbers of NumPy and torch as Python's, their arrays as lists, a device as its name.

    Everything else is returned as it is.
    """
    if type(value) in _PLAIN:
        return value
    if type(value).__module__ == "torch" and type(value).__name__ == "device":
        return str(value)
    if type(value).__module__.partition(".")[0] not in ("numpy", "torch"):
        return value
    return value.tolist() if hasattr(value, "tolist") else value


def stored(value: Any, what: str) -> Any:
    """Return `value` in the JSON form in which a configuration holds it.

    Tuples become lists, NumPy's numbers Python's, and names strings.

    Raises:
        ConfigError: it has no such form; `what` names it.
    """
    value = plain(value)
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [stored(item, what) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): stored(item, what) for key, item in value.items()}
    raise ConfigError(
        f"{what} is {shown(value)}: expected a finite number, a text, true, false, none, or lists "
        "and tables of these, since results store it"
    )


def storable(value: Any) -> bool:
    """Return whether `value` can stand in a configuration."""
    try:
        stored(value, "")
    except ConfigError:
        return False
    return True


def shown(value: Any) -> str:
    """Return `value` as messages show it: short and on one line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not print whole numbers of more than 4,300 digits
        return f"a number of {value.bit_length()} bits"
    except Exception:  # a foreign __repr__ may raise anything
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def _checked(name: str, value: Any, bound: Bound | None) -> Any:
    from pydantic import ValidationError

    given = plain(value)
    try:
        return _validator(name, bound)(_amount(given) if name in _AMOUNTS else given)
    except ValidationError as error:
        kind = error.errors(include_url=False, include_context=False, include_input=False)[0]
        expected = _expected(bound.kind if bound else _OTHERS[name], bound, kind["type"])
        raise ConfigError(f"{name} is {shown(given)}: {expected}") from None


def _amount(value: Any) -> Any:
    """Return "20M" as 2e7, "1.5B" as 1.5e9; anything else as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMBG])\s*", value)
    return value if found is None else round(float(found[1]) * _SUFFIXES[found[2]])


@cache
def _validator(name: str, bound: Bound | None) -> Callable[[Any], Any]:
    from pydantic import TypeAdapter

    annotation = _annotation(bound.kind if bound else _OTHERS[name], bound)
    return TypeAdapter(annotation).validator.validate_python


@cache
def _together(names: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    from pydantic import TypeAdapter
    from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

    kinds = {
        name: _annotation(b.kind if (b := SETTINGS.get(name)) else _OTHERS[name], b)
        for name in names
    }
    return TypeAdapter(TypedDict("Settings", kinds)).validator.validate_python  # type: ignore


def _annotation(kind: Any, bound: Bound | None) -> Any:
    from pydantic import Field

    if kind is list:
        return tuple[_ranged(SETTINGS["seqlen"]), ...]  # type: ignore[misc]
    if kind is dict:
        return dict[str, Any]
    return _ranged(bound) if bound else Annotated[kind, Field(strict=True)]


def _ranged(bound: Bound) -> Any:
    from pydantic import BeforeValidator, Field

    finite: Any = {"allow_inf_nan": False} if bound.kind is float else {}
    least: Any = {"gt" if bound.above else "ge": bound.least}
    limits: Any = Field(strict=True, le=bound.most, **least, **finite)
    whole = BeforeValidator(_whole if bound.kind is int else plain)
    return Annotated[bound.kind, limits, whole]


def _whole(value: Any) -> Any:
    value = plain(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _expected(kind: Any, bound: Bound | None, fault: str) -> str:
    """Say what was expected, given the type of pydantic's error."""
    if bound and fault == "less_than_equal":
        return bound.too_large
    if bound and fault in ("greater_than_equal", "greater_than", "finite_number"):
        return bound.too_small
    return f"expected {_WORDS[kind]}"
