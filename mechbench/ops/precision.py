"""The number type that autocast asks for, and how exact products are."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype:
    """Return autocast's dtype if autocast is on for x's device, else x's own dtype."""
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else x.dtype


def product_precision(x: Tensor) -> str:
    """Return how the kernels' products of float32 numbers round, in Triton's words.

    "tf32" (10 bits) where a product of x would be of a half type (bfloat16 has 7 bits), otherwise
    "tf32x3", three such products for one that is close to float32.
    """
    return "tf32" if autocast_dtype(x).itemsize < 4 else "tf32x3"
