"""What the kernels of the long convolution write to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mechbench.ops.triton import whole_vectors


def empty_gradient(shape: Sequence[int], L: int, device: torch.device) -> Tensor:
    """Return where the gradient of filters (D, K) goes: zero for the taps beyond L."""
    make = torch.zeros if shape[1] > L else torch.empty
    return make(tuple(shape), dtype=torch.float32, device=device)


def empty_pieces(like: Tensor) -> Tensor:
    """Return an empty (B, D, L), or longer, whose rows begin at whole vectors; contiguous."""
    B, D, L = like.shape
    return torch.empty(B, D, whole_vectors(L), dtype=like.dtype, device=like.device)
