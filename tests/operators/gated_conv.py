"""A slow loop over tokens of the operators of StripedHyena 2, for their tests."""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.operators.gated_conv import GatedConv


def features(op: GatedConv, u: Tensor) -> list[Tensor]:
    """Return q, k and v, (B, L, D) each, tap by tap."""
    p = u @ op.in_proj.weight.T
    rows = []
    for t in range(u.shape[1]):
        row = torch.zeros_like(p[:, 0])
        for lag in range(min(op.short_weight.shape[1], t + 1)):
            row = row + op.short_weight[:, lag] * p[:, t - lag]
        rows.append(row)
    return list(torch.stack(rows, 1).chunk(3, -1))


def tap_by_tap(op: GatedConv, u: Tensor, h: list[list[float]]) -> Tensor:
    """Return y, (B, L, D), where h holds the taps of every group, zero beyond the last."""
    q, k, v = features(op, u)
    D = u.shape[-1]
    size = D // len(h)
    z, rows = k * v, []
    for t in range(u.shape[1]):
        row = torch.zeros(len(u), D, dtype=u.dtype)
        for channel in range(D):
            taps = h[channel // size]
            for lag in range(min(len(taps), t + 1)):
                row[:, channel] += taps[lag] * z[:, t - lag, channel]
        if op.skip is not None:
            row = row + op.skip * z[:, t]
        rows.append((q[:, t] * row) @ op.out_proj.weight.T + op.out_proj.bias)
    return torch.stack(rows, 1)
