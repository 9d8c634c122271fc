"""Scan of gated sums, one number a channel: h_t = a_t h_{t-1} + b_t, h_{-1} = 0.

The same composition of affine maps as in `affine_scan` (Blelloch 1990, first-order recurrences as
scans), where every matrix is diagonal. Nothing is divided, so gates may be zero, and with gates of
at most 1 no partial result is larger than the sum of what it adds. The backward pass is a scan from
the end,

    g_t = dh_t + a_{t+1} g_{t+1},   db_t = g_t,   da_t = g_t h_{t-1}

so that only gates and states are kept for it. On a GPU fused Triton kernels compute both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.errors import ConfigError
from mechbench.ops.affine_scan import affine_scan
from mechbench.ops.triton import unavailable
from mechbench.ops.used import noted


def diagonal_scan(a: Tensor, b: Tensor) -> Tensor:
    """Return every h_t, in O(log L) steps with O(B L D) work and memory in total.

    Args:
        a: (B, L, D) gates, at most 1 in size where L is large.
        b: (B, L, D) what is added.

    Returns:
        (B, L, D).

    Raises:
        ConfigError: shapes that do not match.
    """
    if a.ndim != 3 or a.shape != b.shape or a.shape[1] < 1:
        raise ConfigError(
            f"a and b have shapes {tuple(a.shape)} and {tuple(b.shape)}: expected (B, L, D) twice"
        )
    out: Tensor = _DiagonalScan.apply(a, b)  # type: ignore[no-untyped-call]
    return out


def diagonal_scan_matrix(log_a: Tensor) -> Tensor:
    """Return the weight of every b_s in every h_t, for a small L.

    Args:
        log_a: (B, L, D), log a_t, all finite.

    Returns:
        (B, D, L, L), a_{s+1} ... a_t for s <= t, else 0.
    """
    total = log_a.cumsum(1).transpose(1, 2)  # (B, D, L)
    exponent = total[..., :, None] - total[..., None, :]
    causal = torch.ones(exponent.shape[-2:], dtype=torch.bool, device=log_a.device).tril()
    return exponent.masked_fill(~causal, float("-inf")).exp()


def diagonal_scan_reference(a: Tensor, b: Tensor) -> Tensor:
    """Compute `diagonal_scan` step by step: for tests."""
    state, states = torch.zeros_like(b[:, 0]), []
    for t in range(b.shape[1]):
        state = a[:, t] * state + b[:, t]
        states.append(state)
    return torch.stack(states, 1)


def _scan(a: Tensor, b: Tensor) -> Tensor:
    return affine_scan(a[..., None], b[..., None])[..., 0]  # columns, so that products are by row


class _DiagonalScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        if noted("diagonal_scan", b, unavailable(a, b) is None):
            from mechbench.ops.diagonal_scan.kernels import forward

            h = forward(a, b)
        else:
            h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor]:
        a, h = ctx.saved_tensors
        if unavailable(a, h, dh) is None:
            from mechbench.ops.diagonal_scan.kernels import backward

            return backward(a, h, dh)
        later = F.pad(a[:, 1:], (0, 0, 0, 1))  # a_{t+1}; what stands last multiplies nothing
        g = _scan(later.flip(1), dh.flip(1)).flip(1)
        return g * F.pad(h[:, :-1], (0, 0, 1, 0)), g
