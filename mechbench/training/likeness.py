"""Whether what a file holds is what was expected there."""

from __future__ import annotations

import torch
from torch import Tensor


def check_like(what: str, value: object, expected: Tensor) -> None:
    """Check that `value` is a tensor like the expected one.

    Raises:
        ValueError: it is none, or has another shape, type or layout; `what` names it.
    """
    if (
        not isinstance(value, Tensor)
        or value.layout != torch.strided
        or value.shape != expected.shape
        or value.dtype != expected.dtype
    ):
        raise ValueError(f"{what} does not fit the model")
