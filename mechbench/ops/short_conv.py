"""Causal depthwise convolution with a few explicit taps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def short_conv(u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return y_t = sum_k weight_k u_{t-k} + bias per channel, zeros before the start.

    Args:
        u: (B, D, L).
        weight: (D, K), the tap of lag 0 first.
        bias: (D,) or None.

    Returns:
        (B, D, L).
    """
    K = weight.shape[1]
    return F.conv1d(F.pad(u, (K - 1, 0)), weight.flip(1)[:, None], bias, groups=u.shape[1])


def short_conv_reference(u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `short_conv` tap by tap: for tests."""
    y = u.new_zeros(u.shape)
    for k in range(min(weight.shape[1], u.shape[-1])):
        y[..., k:] += weight[:, k, None] * u[..., : u.shape[-1] - k]
    return y if bias is None else y + bias[:, None]
