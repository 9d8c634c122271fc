"""`delta_rule` with the chunked kernels of flash-linear-attention.

They are `fla.ops.delta_rule` without decays, and with one a head `fla.ops.gated_delta_rule`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.ops.fla import refused

_MOST_CHANNELS = 256  # of a key


def unsupported(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None) -> str | None:
    """Say why these inputs are refused: the package, CUDA and a half type are needed."""
    reason = refused(q, k, v, decays=log_decay is not None)
    if reason is not None:
        return reason
    if v.dtype == torch.float32:
        return "the values are float32: its delta rule takes bfloat16 or float16"
    if log_decay is not None and log_decay.ndim == 4:
        return "a decay for each key channel: its delta rule takes one a head"
    if k.shape[-1] > _MOST_CHANNELS:
        return f"keys of {k.shape[-1]} channels: its delta rule takes at most {_MOST_CHANNELS}"
    return None


def rule(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, beta: Tensor) -> Tensor:
    """Compute `mechbench.ops.delta_rule` on inputs that are supported."""
    q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))  # (B, L, H, ..)
    beta = beta.transpose(1, 2)  # (B, L, H)
    if log_decay is None:
        from fla.ops.delta_rule import chunk_delta_rule

        y, _ = chunk_delta_rule(q=q, k=k, v=v, beta=beta, scale=1.0)
    else:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule

        g = log_decay.transpose(1, 2)
        y, _ = chunk_gated_delta_rule(q=q, k=k, v=v, g=g, beta=beta, scale=1.0)
    out: Tensor = y.transpose(1, 2)
    return out
