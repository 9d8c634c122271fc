"""Whole numbers modulo m, held as floats: these are multiplied and reduced several times faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NARROW, _WIDE = 1 << 22, 1 << 50  # up to these `reduce_` is exact, of 32 and of 64 bits


def floats_for(largest: int) -> tuple[torch.dtype, int]:
    """Return the fastest floats for numbers up to `largest`, and up to which they are exact.

    Args:
        largest: the greatest magnitude that occurs before a number is reduced, at most 2^50.
    """
    import torch

    return (torch.float32, _NARROW) if largest < _NARROW else (torch.float64, _WIDE)


def reduce_(numbers: Tensor, modulus: int) -> Tensor:
    """Replace whole numbers by themselves modulo m, and return them.

    The half keeps quotients from whole numbers by more than they are rounded.

    Args:
        numbers: floats as `floats_for` names them.
        modulus: m, at most 2,000.
    """
    quotients = numbers + 0.5
    return numbers.sub_(quotients.mul_(1 / modulus).floor_(), alpha=modulus)
