"""Rotary position embedding. Source: Su et al. 2021 (RoFormer), section 3.2."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotate pairs of features by angles that grow with the position.

    Args:
        x: (..., L, d) with d even; feature i pairs with feature i + d/2.
        base: wavelength ratio; the slowest pair turns once in about 2 pi base positions.

    Returns:
        The rotated tensor, in the dtype of `x`; angles are computed in float32 or wider.
    """
    L, d = x.shape[-2:]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    rate = base ** (-torch.arange(0, d, 2, device=x.device, dtype=wide) / d)  # (d/2,)
    angle = torch.arange(L, device=x.device, dtype=wide)[:, None] * rate  # (L, d/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
