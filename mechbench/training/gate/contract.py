"""The contract of every call of an operator: (B, L, D) in, the same out, on the same device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.errors import OperatorError
from mechbench.training.gate.watchdog import Watchdog


def breach(u: Tensor, y: Any) -> str | None:
    """Return what is wrong with `y`, the answer to `u`, or None.

    Half types are taken, as autocast gives them; wider ones are not, since they would change the
    type of all that follows.
    """
    if not isinstance(y, Tensor):
        return f"returned a {type(y).__name__}: expected a tensor of shape {tuple(u.shape)}"
    if y.shape != u.shape:
        return f"returned shape {tuple(y.shape)}: expected {tuple(u.shape)}"
    widest = max(u.element_size(), torch.float32.itemsize)
    if not y.is_floating_point() or y.element_size() > widest:
        return f"returned {y.dtype} for an input of {u.dtype}: expected the same"
    if y.device != u.device:
        return f"returned a tensor on {y.device}: expected {u.device}"
    return None


@contextmanager
def overheard(operators: Sequence[nn.Module], hear: Callable[[Tensor], object]) -> Iterator[None]:
    """Let `hear` have the input of every call of some operators while the context lasts."""

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        hear(args[0])

    handles = [operator.register_forward_pre_hook(enter) for operator in operators]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def guarded(model: nn.Module, operator: str, dog: Watchdog | None = None) -> Iterator[None]:
    """Check every call of every operator in `model` while the context lasts.

    The hooks read no data, so they cost microseconds and stall no GPU.

    Args:
        model: a `mechbench.training.model.Backbone`.
        operator: name, for messages.
        dog: told of calls that begin and end.
    """

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        if dog is not None:
            dog.busy(f"forward at L={args[0].shape[1]}")

    def leave(module: nn.Module, args: tuple[Any, ...], y: Any) -> None:
        fault = breach(args[0], y)
        if fault is not None:
            raise OperatorError(f"operator {operator!r} {fault}")
        if dog is None:
            return
        if torch.is_grad_enabled():
            dog.busy(f"backward at L={args[0].shape[1]}")
        else:
            dog.idle()

    handles = []
    for block in model.blocks:  # type: ignore[union-attr]
        handles.append(block.operator.register_forward_pre_hook(enter))
        handles.append(block.operator.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
