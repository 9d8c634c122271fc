"""Options of a component (`--option key=value`), checked and typed from its signature. No torch.

Values are numbers, strings, true, false, none, and lists and tables of these: what a result can
store. An option whose default is anything else (a function, a class, a dtype, a module) is internal
to the component: it keeps that default, nobody can set it, and it enters a cell's identity through
the component's source, not by value.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mechbench.catalogue.bounds import INT64
from mechbench.catalogue.settings import plain, shown, storable, stored
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
    """Return {option: inspect.Parameter with a resolved annotation}; "**" stands for any other.

    Options that are internal to the component, because of their default's type, are left out.
    """
    return {
        k: v
        for k, v in _parameters(component).items()
        if k == "**" or (k not in reserved and not _own(v))
    }


def _own(parameter: inspect.Parameter) -> bool:
    """Return whether an option cannot be set, because results cannot store its default."""
    default = parameter.default
    return default is not inspect.Parameter.empty and not storable(default)


@functools.lru_cache(maxsize=256)  # a sweep asks the same few components ten thousand times
def _parameters(component: Callable[..., Any]) -> dict[str, Any]:
    try:
        signature = inspect.signature(component)
    except (TypeError, ValueError):
        return {}
    target = component.__init__ if inspect.isclass(component) else component
    try:
        hints = typing.get_type_hints(target)
    except Exception:  # an annotation may be any expression, even with undefined names
        hints = {}
    out: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            out["**"] = parameter
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            out[name] = parameter.replace(annotation=hints.get(name, parameter.annotation))
    if dataclasses.is_dataclass(component):
        for field in dataclasses.fields(component):
            if field.name in out and field.default_factory is not dataclasses.MISSING:
                out[field.name] = out[field.name].replace(default=field.default_factory())
    return out


def resolve_options(
    component: Callable[..., Any],
    given: Mapping[str, Any],
    *,
    owner: str,
    reserved: Iterable[str] = (),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return every option of `component` with its value: the given one, converted, or the default.

    Values get the annotated type: strings are parsed ("3", "none", "1,2,3" or "[1, 2, 3]" for a
    list), whole numbers become floats where a float is declared, NumPy's numbers become Python's.

    Args:
        component: class or factory whose signature declares the options.
        given: option to value, strings from a command line or Python values.
        owner: whose options they are, for messages ("operator 'hyena'").
        reserved: parameters that the harness passes itself.
        more: options beyond the signature's, as `signature_options` returns them.

    Raises:
        ConfigError: an unknown option, a value of the wrong type, or a required one missing.
    """
    options = {**signature_options(component, reserved), **(more or {})}
    open_ended = options.pop("**", None) is not None
    out: dict[str, Any] = {}
    for key, value in given.items():
        what = f"option {key!r} of {owner}"
        if key in options:
            out[key] = _convert(plain(value), options[key].annotation, what)
        elif key in (declared := _parameters(component)) and key not in reserved:
            default = shown(declared[key].default)
            raise ConfigError(
                f"option {key!r} of {owner} cannot be set: results cannot store its default, "
                f"{default}"
            )
        elif open_ended and key not in reserved:
            out[key] = stored(_guess(plain(value)), what)
        else:
            raise ConfigError(f"{owner} has no option {key!r}: {nearest(key, options)}")
        _check_range(out[key], what)
    for key, parameter in options.items():
        if key not in out:
            if parameter.default is inspect.Parameter.empty:
                raise ConfigError(f"{owner} needs the option {key!r}: add {key}=VALUE")
            out[key] = _default(parameter)
    return dict(sorted(out.items()))


def _default(parameter: inspect.Parameter) -> Any:
    """Return the default in the form that the same value would have if it were given."""
    default = copy.deepcopy(plain(parameter.default))  # otherwise a default list would be shared
    kinds = get_args(parameter.annotation) or (parameter.annotation,)
    return (
        float(default) if type(default) is int and float in kinds and int not in kinds else default
    )


def _check_range(value: Any, what: str) -> None:
    """Refuse numbers that JSON or 64 bits cannot hold, also in lists and tables."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _check_range(item, what)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{what} is {shown(value)}: expected a finite number")
    elif isinstance(value, int) and abs(value) > INT64:
        raise ConfigError(f"{what} is {shown(value)}: expected at most {INT64} (64 bits)")


def type_text(annotation: Any) -> str:
    """Return what may be given where a parameter is annotated so; empty if anything may be."""
    if annotation in (inspect.Parameter.empty, Any):
        return ""
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_text(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_text, get_args(annotation)))
    return " or ".join(_names(annotation))


def _names(kind: Any) -> list[str]:
    """Return what messages call a type; for a Literal, its choices."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    if get_origin(kind) is not None:
        return [str(kind).replace("typing.", "").replace("collections.abc.", "")]
    return [getattr(kind, "__name__", str(kind)).replace("NoneType", "none")]


def _guess(value: Any) -> Any:
    """Guess the type of a string that has no annotation."""
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
    """Return `value` as the type that `annotation` says.

    Raises:
        ConfigError: it cannot be converted, or results could not store it.
    """
    if annotation in (inspect.Parameter.empty, Any) or isinstance(annotation, str):
        return stored(_guess(value), what)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _convert(value, get_args(annotation)[0], what)
    if origin is Literal:
        choices = {str(c): c for c in get_args(annotation)}
        if str(value) not in choices:
            raise ConfigError(f"{what} is {shown(value)}: {nearest(str(value), choices)}")
        return choices[str(value)]
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(annotation), what)
    if annotation is bool:
        low = str(value).lower()
        if low in _TRUE | _FALSE:
            return low in _TRUE
        raise ConfigError(f"{what} is {shown(value)}: expected true or false")
    if annotation in (int, float):
        return _number(value, annotation, what)
    if annotation is str:
        if isinstance(value, str | bool | int | float):
            return str(value)
        raise ConfigError(f"{what} is {shown(value)}: expected a text")
    container = _CONTAINERS.get(origin or annotation)
    if container is dict:
        return _table(value, annotation, what)
    if container is not None:
        return container(_items(value, annotation, what))
    if annotation is type(None) and str(value).lower() == "none":
        return None
    raise ConfigError(
        f"{what} is {shown(value)}: expected a {_names(annotation)[0]}, which no result can store; "
        "give it a default, and the option is the component's own"
    )


_CONTAINERS: dict[Any, type] = {
    list: list, Sequence: tuple, Iterable: tuple, tuple: tuple, dict: dict, Mapping: dict,
}  # fmt: skip


def _number(value: Any, kind: type, what: str) -> int | float:
    """Return a whole number or a number; "2e4" is a whole number too."""
    try:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ValueError
        if kind is float:
            return float(value)
        try:
            return int(value) if not isinstance(value, float) else _exact(value)
        except ValueError:
            return _exact(float(value))
    except (ValueError, OverflowError):
        expected = {int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{what} is {shown(value)}: expected {expected}") from None


def _exact(value: float) -> int:
    if not value.is_integer():
        raise ValueError
    return int(value)


def _convert_union(value: Any, kinds: tuple[Any, ...], what: str) -> Any:
    if type(None) in kinds and (value is None or str(value).lower() == "none"):
        return None
    if type(value) in kinds and not isinstance(value, str):
        return value  # for int | float: keep the type it has
    for kind in kinds:
        if kind is not type(None):
            try:
                return _convert(value, kind, what)
            except ConfigError:
                continue
    names = " or ".join(name for kind in kinds for name in _names(kind))
    raise ConfigError(f"{what} is {shown(value)}: expected {names}")


def _items(value: Any, annotation: Any, what: str) -> list[Any]:
    """Return the items of a list or tuple, each of its type."""
    given = _read(value, "[") if isinstance(value, str) else value
    kinds = get_args(annotation)
    expected = f"expected {_names(annotation)[0]}, as 1,2,3 or [1, 2, 3]"
    if not isinstance(given, list | tuple):
        raise ConfigError(f"{what} is {shown(value)}: {expected}")
    if (get_origin(annotation) or annotation) is tuple and kinds and kinds[-1] is not Ellipsis:
        if len(kinds) != len(given):
            raise ConfigError(f"{what} is {shown(value)}: expected {len(kinds)} values")
        return [_convert(plain(v), k, what) for v, k in zip(given, kinds, strict=True)]
    kind = kinds[0] if kinds else Any
    return [_convert(plain(item), kind, what) for item in given]


def _table(value: Any, annotation: Any, what: str) -> dict[str, Any]:
    given = _read(value, "{") if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        expected = f'expected {_names(annotation)[0]}, as {{"name": 1}}'
        raise ConfigError(f"{what} is {shown(value)}: {expected}")
    kind = [*get_args(annotation), Any, Any][1]
    return {str(key): _convert(plain(item), kind, what) for key, item in given.items()}


def _read(text: str, opening: str) -> Any:
    """Return the contents of a string: JSON, or values separated by commas; None if neither."""
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
    if opening == "{":
        return None
    return [item.strip() for item in text.split(",")] if text.strip() else []
