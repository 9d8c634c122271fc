"""Every token beside the one before it: what a token shift mixes, in a pass each way."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.precision import autocast_dtype
from mechbench.ops.triton import unavailable


def with_earlier(u: Tensor) -> Tensor:
    """Return (u_t, u_{t-1}) for every t, zeros before the first: (B, L, 2 D).

    Args:
        u: (B, L, D).

    Returns:
        In autocast's dtype where it is on.
    """
    dtype = autocast_dtype(u)
    if unavailable(u) is None and dtype.itemsize <= 4:
        out: Tensor = _WithEarlier.apply(u, dtype)  # type: ignore[no-untyped-call]
        return out
    u = u.to(dtype)
    return torch.cat([u, F.pad(u, (0, 0, 1, -1))], -1)


class _WithEarlier(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, dtype: torch.dtype) -> Tensor:
        from mechbench.ops.token_shift.kernels import forward

        ctx.dtype = u.dtype
        return forward(u, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        from mechbench.ops.token_shift.kernels import backward

        return backward(dy, ctx.dtype), None
