"""`decay_attention` with the chunked kernels of flash-linear-attention, `fla.ops.simple_gla`.

They keep states in the dtype of the values and multiply float32 as TF32, so they round more than
ours. A constant decay without a gradient is passed as such.
"""

from __future__ import annotations

from torch import Tensor

from mechbench.ops.fla import refused


def unsupported(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None) -> str | None:
    """Say why these inputs are refused: the package, CUDA and at most 32 bits are needed."""
    return refused(q, k, v, decays=log_decay is not None)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    scale: Tensor | None,
    skip: Tensor | None,
) -> Tensor:
    """Compute `mechbench.ops.decay_attention` on inputs that are supported."""
    from fla.ops.simple_gla import chunk_simple_gla

    B, H, L, _ = v.shape
    told = v if scale is None else v * scale[..., None]
    q, k, told = (x.to(v.dtype).expand(B, H, L, -1).transpose(1, 2) for x in (q, k, told))
    g = gamma = None
    if log_decay is not None and _is_constant(log_decay):
        gamma = log_decay.float().flatten().expand(H)
    elif log_decay is not None:
        g = log_decay.expand(B, H, L).transpose(1, 2)  # (B, L, H)
    y, _ = chunk_simple_gla(q=q, k=k, v=told, g=g, g_gamma=gamma, scale=1.0)  # (B, L, H, P)
    y = y.transpose(1, 2)
    out: Tensor = y if skip is None else (y + skip[:, None, None] * v).to(v.dtype)
    return out


def _is_constant(log_decay: Tensor) -> bool:
    """Return whether it is the same at every token of every sequence, and not learnt."""
    lead = log_decay.shape[:-2]
    one = log_decay.shape[-1:].numel() == 1 and lead.numel() == 1
    return one and not log_decay.requires_grad
