"""Whether two modules compute the same, but for their weights."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

_CARRIED = ("_parameters", "_buffers")


def kind_of(module: nn.Module, *, of_step: bool = False) -> Hashable:
    """Return what two modules have in common only if they compute the same on other weights.

    All that a module holds counts: what cannot be compared is taken to be different.

    Args:
        module: any.
        of_step: also count the values of tensors that are neither parameters nor buffers: nobody
            carries them over from one module to another.
    """
    return tuple(
        (
            name,
            type(part),
            *(
                (key, _held(value, of_step and key not in _CARRIED))
                for key, value in sorted(vars(part).items())
            ),
        )
        for name, part in module.named_modules(remove_duplicate=False)
    )


def is_own(module: nn.Module) -> bool:
    """Return whether all parts of a module are the package's or PyTorch's.

    Others may compute on one device alone, or make choices that hang on values.
    """
    return all(type(m).__module__.split(".")[0] in ("mechbench", "torch") for m in module.modules())


def _held(value: Any, by_identity: bool) -> Hashable:
    if isinstance(value, torch.Tensor):
        return _Itself(value) if by_identity else (value.shape, value.dtype, value.requires_grad)
    if isinstance(value, nn.Module):
        return _Itself(type(value))  # it is a part of its own
    if isinstance(value, dict):
        return type(value), *((key, _held(held, by_identity)) for key, held in value.items())
    if isinstance(value, list | tuple):
        return type(value), *(_held(held, by_identity) for held in value)
    if isinstance(value, set | frozenset):
        return type(value), frozenset(_held(held, by_identity) for held in value)
    if value is None or type(value) in (bool, int, float, str, bytes, torch.dtype, torch.device):
        return type(value), value
    return _Itself(value)


class _Itself:
    """Equals what holds the same object, which it keeps alive so that no other takes its place."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)
