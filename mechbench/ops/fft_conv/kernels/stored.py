"""Numbers as they stand between two kernels (`cuda/stored.cuh`)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Stored(NamedTuple):
    """Complex numbers, and the scale of each block that wrote them."""

    numbers: Tensor  # complex64, or a half for each part, as int32
    scales: Tensor  # float32; of no number where they have none

    @classmethod
    def empty(cls, *shape: int, blocks: int, halved: bool, device: torch.device) -> Stored:
        """Return uninitialised numbers of a shape, with the scales of `blocks` blocks."""
        dtype = torch.int32 if halved else torch.complex64
        numbers = torch.empty(shape, dtype=dtype, device=device)
        return cls(numbers, torch.empty(blocks if halved else 0, device=device))


def is_halved(dtype: torch.dtype) -> bool:
    """Return whether numbers between kernels are halves, for rows of a type."""
    return dtype != torch.float32


def empty_gradient(h: Tensor, L: int) -> Tensor:
    """Return where the gradient of filters h (D, K) goes: zero for the taps beyond L."""
    return torch.zeros_like(h) if h.shape[1] > L else torch.empty_like(h)
