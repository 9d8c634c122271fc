"""Options of a component (`--option key=value`), checked and typed from its signature. No torch."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from mechbench.errors import ConfigError, nearest

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def parse_pairs(pairs: Iterable[str], flag: str = "--option") -> dict[str, str]:
    """Split ("key=value", ...) into a dictionary.

    Raises:
        ConfigError: a pair without "=", or a key given twice.
    """
    out: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{flag} {pair!r} is not of the form key=value")
        if key in out:
            raise ConfigError(f"{flag} {key!r} is given twice: {out[key]!r} and {value!r}")
        out[key] = value
    return out


def signature_options(component: Callable[..., Any], reserved: Iterable[str]) -> dict[str, Any]:
    """Return {option: inspect.Parameter with a resolved annotation}; "**" stands for any other."""
    return {k: v for k, v in _parameters(component).items() if k == "**" or k not in reserved}


@functools.lru_cache(maxsize=256)  # a sweep asks the same few components ten thousand times
def _parameters(component: Callable[..., Any]) -> dict[str, Any]:
    try:
        signature = inspect.signature(component)
    except (TypeError, ValueError):
        return {}
    target = component.__init__ if inspect.isclass(component) else component
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):
        hints = {}
    out: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            out["**"] = parameter
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            out[name] = parameter.replace(annotation=hints.get(name, parameter.annotation))
    return out


def resolve_options(
    component: Callable[..., Any],
    given: Mapping[str, Any],
    *,
    owner: str,
    reserved: Iterable[str] = (),
) -> dict[str, Any]:
    """Return every option of `component` with its value: what was given, typed, else the default.

    Strings are converted to the annotated type; values of the right type pass as they are.

    Args:
        component: class or factory whose signature declares the options.
        given: option to value, strings from a command line or Python values.
        owner: who is asked, for messages ("operator 'hyena'").
        reserved: parameters that the harness passes itself.

    Raises:
        ConfigError: an unknown option, a value of the wrong type, or a required one missing.
    """
    options = signature_options(component, reserved)
    open_ended = options.pop("**", None) is not None
    out: dict[str, Any] = {}
    for key, value in given.items():
        if key in options:
            out[key] = _convert(value, options[key].annotation, f"option {key!r} of {owner}")
        elif open_ended and key not in reserved:
            out[key] = _guess(value)
        else:
            raise ConfigError(f"{owner} has no option {key!r}: {nearest(key, options)}")
    for key, parameter in options.items():
        if key not in out:
            if parameter.default is inspect.Parameter.empty:
                raise ConfigError(f"{owner} needs the option {key!r}: add {key}=VALUE")
            out[key] = parameter.default
    return dict(sorted(out.items()))


def _names(kind: Any) -> list[str]:
    """Return how a message calls a type: a Literal by its choices."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return [getattr(kind, "__name__", str(kind)).replace("NoneType", "none")]


def _guess(value: Any) -> Any:
    """Type a string by its look, where no annotation tells."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    low = value.lower()
    return {"true": True, "false": False, "none": None}.get(low, value)


def _convert(value: Any, annotation: Any, what: str) -> Any:
    """Return `value` as `annotation` says."""
    if annotation in (inspect.Parameter.empty, Any) or isinstance(annotation, str):
        return _guess(value)
    origin = get_origin(annotation)
    if origin is Literal:
        choices = {str(c): c for c in get_args(annotation)}
        if str(value) not in choices:
            raise ConfigError(f"{what} is {value!r}: {nearest(str(value), choices)}")
        return choices[str(value)]
    if origin in (Union, types.UnionType):
        kinds = get_args(annotation)
        if type(None) in kinds and (value is None or str(value).lower() == "none"):
            return None
        for kind in kinds:
            if kind is not type(None):
                try:
                    return _convert(value, kind, what)
                except ConfigError:
                    continue
        names = " or ".join(name for kind in kinds for name in _names(kind))
        raise ConfigError(f"{what} is {value!r}: expected {names}")
    if annotation is bool:
        low = str(value).lower()
        if low in _TRUE | _FALSE:
            return low in _TRUE
        raise ConfigError(f"{what} is {value!r}: expected true or false")
    if annotation in (int, float):
        try:
            if isinstance(value, bool):
                raise ValueError
            number = annotation(value)
            if annotation is int and isinstance(value, float) and number != value:
                raise ValueError
            return number
        except (TypeError, ValueError, OverflowError):
            kind = {int: "a whole number", float: "a number"}[annotation]
            raise ConfigError(f"{what} is {value!r}: expected {kind}") from None
    if annotation is str:
        return str(value)
    return _guess(value)
