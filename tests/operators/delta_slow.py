"""Parts of the slow loops that tests of delta-rule layers compare with, written from the papers."""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.operators.delta_layer import DeltaLayer


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def normalised(x: Tensor) -> Tensor:
    """Scale a vector (d,) to norm 1; the constant is that of the released code."""
    return x / (x.square().sum() + 1e-6).sqrt()


def rms_normed(y: Tensor, weight: Tensor) -> Tensor:
    """Divide a vector (d,) by its root mean square."""
    return y / (y.square().mean() + 1e-5).sqrt() * weight


def convolved(op: DeltaLayer, u: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return silu of the convolved projections (B, L, C), tap by tap, and the other projections."""
    C = sum(op.convolved)
    x, *rest = (u @ op.in_proj.weight.T).split([C, *op.rest], -1)
    y = torch.zeros_like(x)
    for t in range(u.shape[1]):
        for lag in range(min(op.short_weight.shape[1], t + 1)):
            y[:, t] += op.short_weight[:, lag] * x[:, t - lag]
    return silu(y), rest
