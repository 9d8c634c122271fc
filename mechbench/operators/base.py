"""How an operator is built by name, and what it may tell the harness besides `forward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from mechbench.catalogue.options import resolve_options, signature_options
from mechbench.catalogue.registry import OPERATORS, Entry
from mechbench.catalogue.settings import setting, shown
from mechbench.errors import ConfigError, MechbenchError, OperatorError, SeqlenError

RESERVED = ("name", "d_model", "max_seqlen", "layer")  # arguments of `make_operator`, never options


def declared_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return {option: inspect.Parameter} of the operator `name`; "**" stands for any other name.

    Raises:
        ConfigError: unknown operator, or a wrong value in `given` for an option that determines
            which others there are.
        OperatorError: `option_groups` raised.
    """
    groups = _option_groups(name, given)
    own = signature_options(OPERATORS.load(name), (*RESERVED, *groups))
    return {**own, **_together(groups)}


def operator_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of the operator `name`: the given ones, converted, and the defaults.

    A component that accepts any keyword may have an attribute `typed`, a function that converts
    options which its signature does not declare. One that passes options on to a part of it has an
    attribute `option_groups`: {argument: function}. The function gets the component's own options
    and returns {option: inspect.Parameter}, see `signature_options`. All of these become options of
    the operator, and its constructor gets them as one mapping, in that argument.

    Raises:
        ConfigError: unknown operator or option, or a value of the wrong type.
        OperatorError: `option_groups` raised.
    """
    return _resolved(name, given, _option_groups(name, given))


def _resolved(
    name: str, given: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    component = OPERATORS.load(name)
    out = resolve_options(
        component,
        given,
        owner=f"operator {name!r}",
        reserved=(*RESERVED, *groups),
        more=_together(groups),
    )
    typed = getattr(component, "typed", None)
    return typed(out) if typed else out


def _option_groups(name: str, given: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return {argument: options} for what the operator passes on, if `given` is chosen."""
    component = OPERATORS.load(name)
    functions: Mapping[str, Callable[..., Any]] = getattr(component, "option_groups", {})
    if not functions:
        return {}
    reserved = (*RESERVED, *functions)
    own = signature_options(component, reserved)
    chosen = {key: value for key, value in given.items() if key in own}
    options = resolve_options(component, chosen, owner=f"operator {name!r}", reserved=reserved)
    groups = {
        argument: _asked(name, "option_groups", function, options)
        for argument, function in functions.items()
    }
    for argument, group in groups.items():
        for key in group:
            if key in own or key in reserved:
                raise ConfigError(
                    f"option {key!r} in {argument} of operator {name!r} is the operator's own, "
                    "too: rename one"
                )
    return groups


def _together(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for group in groups.values() for key, value in group.items()}


def _asked(name: str, what: str, function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Return what a function that the operator provides returns for its options.

    Raises:
        OperatorError: the function raised.
    """
    try:
        return function(options)
    except MechbenchError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise OperatorError(
            f"operator {name!r} raised {type(error).__name__} in {what}: {text}"
        ) from error


def implied_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that came after results had been stored, as those results imply them.

    A component names them in an attribute `implied`: {option: value}, or a function of the stored
    options that returns it. A configuration stores such an option only where it has another value,
    so that older ones keep both their id and their meaning, whatever the default is now.

    Raises:
        OperatorError: the function raised.
    """
    declared = getattr(OPERATORS.load(name), "implied", {})
    return dict(_asked(name, "implied", declared, options) if callable(declared) else declared)


def to_stored(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return resolved options as a configuration stores them: without what is implied."""
    implied = implied_options(name, options)
    return {k: v for k, v in options.items() if k not in implied or v != implied[k]}


def from_stored(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that stored ones stand for."""
    return {**implied_options(name, options), **options}


def components_used(name: str, options: Mapping[str, Any]) -> list[Entry]:
    """Return the operator `name` and the components that it is made of, to be recorded.

    A component that builds others has an attribute `parts`: a function of its options that returns
    names of operators, or entries of another catalogue.

    Raises:
        ConfigError: there is no such component.
        OperatorError: `parts` raised.
    """
    function = getattr(OPERATORS.load(name), "parts", None)
    parts = _asked(name, "parts", function, options) if function else ()
    return [OPERATORS.entry(part) if isinstance(part, str) else part for part in (name, *parts)]


def depends_on_max_seqlen(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether the operator changes when it is built for longer inputs.

    It does if its weights, or its outputs for the same input, depend on max_seqlen. It says so by
    an attribute `depends_on_max_seqlen`: a bool, or a function of its options that returns one.

    Raises:
        OperatorError: the function raised.
    """
    declared = getattr(OPERATORS.load(name), "depends_on_max_seqlen", False)
    if not callable(declared):
        return bool(declared)
    return bool(_asked(name, "depends_on_max_seqlen", declared, options))


def make_operator(
    name: str, *, d_model: int, max_seqlen: int, layer: int = 0, **options: Any
) -> nn.Module:
    """Build the operator registered as `name`.

    Args:
        name: a built-in, an installed package's or a plugin's operator.
        d_model: D, channels in and out.
        max_seqlen: longest input, in tokens.
        layer: index of its block, from 0; passed only to constructors that name it.
        options: the operator's own keyword arguments; strings are converted by its signature.

    Raises:
        ConfigError: unknown operator or option, or a value out of range.
        OperatorError: its constructor raised, or returned something other than an nn.Module.
    """
    d_model = setting("d_model", d_model)
    max_seqlen, layer = setting("max_seqlen", max_seqlen), setting("layer", layer)
    if max_seqlen < 1:
        raise ConfigError(f"max_seqlen is {max_seqlen}: expected at least 1")
    component, groups = OPERATORS.load(name), _option_groups(name, options)
    resolved = _resolved(name, options, groups)
    for argument, group in groups.items():
        resolved[argument] = {key: resolved.pop(key) for key in group}
    if "layer" in signature_options(component, ()):
        resolved["layer"] = layer
    try:
        operator = component(d_model=d_model, max_seqlen=max_seqlen, **resolved)
    except MechbenchError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise OperatorError(
            f"operator {name!r} raised {type(error).__name__} when built: {text}"
        ) from error
    if not isinstance(operator, nn.Module):
        raise OperatorError(
            f"operator {name!r} gave a {type(operator).__name__}: expected a torch.nn.Module"
        )
    lazy = [key for key, p in operator.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise OperatorError(
            f"operator {name!r} has a lazy parameter {lazy[0]!r}: expected sizes that are known "
            "when it is built, such as nn.Linear(d_model, ...)"
        )
    return operator


def set_optim(
    module: nn.Module, *, lr: float | None = None, weight_decay: float | None = None
) -> None:
    """Give the parameters of `module` their own learning rate or weight decay.

    The harness reads a parameter's attribute `optim`, a dictionary with "lr" and "weight_decay".
    What it lacks is taken from the run; what is not given here stays as it was. Plugins may set the
    attribute too.
    """
    given = {k: v for k, v in (("lr", lr), ("weight_decay", weight_decay)) if v is not None}
    for parameter in module.parameters():
        parameter.optim = getattr(parameter, "optim", {}) | given  # type: ignore[attr-defined]


def check_seqlen(u: Tensor, max_seqlen: int) -> int:
    """Return L of u (B, L, D).

    Raises:
        SeqlenError: L is above max_seqlen; nothing is ever cut silently.
    """
    L = u.shape[1]
    if max_seqlen < L:
        raise SeqlenError(
            f"input of {L} tokens: the operator was built for max_seqlen={max_seqlen}"
        )
    return L


def toeplitz(h: Tensor) -> Tensor:
    """Return the matrices of causal convolutions, (..., L, L), from their taps (..., L)."""
    L = h.shape[-1]
    lag = torch.arange(L, device=h.device)[:, None] - torch.arange(L, device=h.device)
    return torch.where(lag >= 0, h[..., lag.clamp_min(0)], 0)


def materialize(operator: nn.Module, u: Tensor) -> Tensor:
    """Return H(u), the matrix with which `operator` maps values to outputs, for a small L.

    Args:
        operator: an operator with a method `mixing_matrix(u)`.
        u: (B, L, D).

    Returns:
        (B, D, L, L), or with heads in place of D; row t holds the weights of the values at s <= t.

    Raises:
        ConfigError: `operator` is not a module, `u` is not such a tensor, or the operator has no
            method `mixing_matrix`.
        OperatorError: the matrix has another shape, or `mixing_matrix` raised.
    """
    try:
        return matrix_of(operator, u)
    except MechbenchError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise OperatorError(
            f"{type(operator).__name__} raised {type(error).__name__} in mixing_matrix: {text}"
        ) from error


def matrix_of(operator: nn.Module, u: Tensor) -> Tensor:
    """Return what `materialize` does, but let the operator's own exceptions pass unchanged."""
    if not isinstance(operator, nn.Module):
        raise ConfigError(f"operator is {shown(operator)}: expected a torch.nn.Module")
    if not isinstance(u, Tensor) or u.ndim != 3 or not u.is_floating_point() or not u.numel():
        given = f"{u.dtype} of shape {tuple(u.shape)}" if isinstance(u, Tensor) else shown(u)
        raise ConfigError(f"u is {given}: expected floating-point numbers of shape (B, L, D)")
    matrix = getattr(operator, "mixing_matrix", None)
    if matrix is None:
        raise ConfigError(
            f"{type(operator).__name__} has no matrix form: give it a method mixing_matrix(u) "
            "that returns (B, D, L, L)"
        )
    with torch.no_grad():
        out = matrix(u)
    B, L, _ = u.shape
    shape = tuple(getattr(out, "shape", ()))
    if not isinstance(out, Tensor) or (len(shape), shape[:1], shape[2:]) != (4, (B,), (L, L)):
        raise OperatorError(
            f"{type(operator).__name__}.mixing_matrix returned a {type(out).__name__} of shape "
            f"{shape}: expected ({B}, D, {L}, {L})"
        )
    return out
