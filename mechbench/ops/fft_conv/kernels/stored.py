"""Numbers as they stand between two kernels (`cuda/stored.cuh`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mechbench.ops.triton import whole_vectors


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
    return False


def number_bytes(dtype: torch.dtype) -> int:
    """Return the bytes of a complex number between kernels, for rows of a type."""
    return 4 if is_halved(dtype) else 8


def empty_gradient(shape: Sequence[int], L: int, device: torch.device) -> Tensor:
    """Return where the gradient of filters (D, K) goes: zero for the taps beyond L."""
    make = torch.zeros if shape[1] > L else torch.empty
    return make(tuple(shape), dtype=torch.float32, device=device)


def empty_pieces(like: Tensor) -> Tensor:
    """Return an empty (B, D, L), or longer, whose rows begin at whole vectors; contiguous."""
    B, D, L = like.shape
    return torch.empty(B, D, whole_vectors(L), dtype=like.dtype, device=like.device)
