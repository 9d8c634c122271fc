"""Steps and log decays from logits: softplus with a bias, and a rate for each head.

    step = softplus(logit + bias),   log decay = -exp(log_rate) step

Source: Gu & Dao 2023 (arXiv:2312.00752), section 3.2; one rate per head: Dao & Gu 2024
(arXiv:2405.21060), section 7. On a GPU one kernel computes it where the types allow.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable


def soft_decay(
    logits: Tensor, bias: Tensor, log_rate: Tensor, steps: bool = True
) -> tuple[Tensor, Tensor]:
    """Return steps and log decays, of the shape of `logits`, float32 or wider.

    Args:
        logits: (B, H, L), or (B, H, L, K) for one a key channel.
        bias: (H,), or (H, K).
        log_rate: (H,).
        steps: whether steps are wanted; what stands for them otherwise is of no meaning.
    """
    if unavailable(logits) is None:
        flat = logits.transpose(1, 2).flatten(2)  # (B, L, E)
        args = flat, bias.flatten(), log_rate, steps
        shape = logits.transpose(1, 2).shape[2:]
        out: tuple[Tensor, Tensor] = _SoftDecay.apply(*args)  # type: ignore[no-untyped-call]
        now, fall = (torch.unflatten(x, 2, shape).transpose(1, 2) for x in out)
        return now, fall
    wide = torch.promote_types(logits.dtype, torch.float32)
    now = F.softplus(logits.to(wide) + bias[:, None])
    return now, -now * log_rate.exp().view(-1, *[1] * (logits.ndim - 2))


class _SoftDecay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, bias: Tensor, log_rate: Tensor, steps: bool
    ) -> tuple[Tensor, Tensor]:
        from mechbench.ops.soft_decay.kernels import forward

        ctx.save_for_backward(logits, bias, log_rate)
        ctx.set_materialize_grads(False)
        now, fall = forward(logits, bias, log_rate, steps)
        if not steps:
            ctx.mark_non_differentiable(now)
        return now, fall

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dstep: Tensor | None, dfall: Tensor | None) -> tuple[Any, ...]:
        from mechbench.ops.soft_decay.kernels import backward

        logits, bias, log_rate = ctx.saved_tensors
        if dstep is None and dfall is None:
            return None, None, None, None
        dlogits, dbias, drate = backward(logits, bias, log_rate, dstep, dfall)
        return dlogits, dbias.to(bias.dtype), drate.to(log_rate.dtype), None
