"""Cross-entropy and the number of right answers, over the scored positions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable

_WIDEST = 16384  # largest V of a row that one program holds


def cross_entropy(logits: Tensor, targets: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """Return the summed loss and (2,) int64: the numbers of right and of scored positions.

    Args:
        logits: (N, V), of any floating-point type; the loss is computed in float32.
        targets: (N,) int64, `ignore` where not scored.
        ignore: negative number that marks positions not to score.
    """
    if logits.shape[1] <= _WIDEST and logits.is_cuda and unavailable(logits) is None:
        loss, counts = _CrossEntropy.apply(logits, targets, ignore)  # type: ignore[no-untyped-call]
        return loss, counts
    logits = logits.float()
    loss = F.cross_entropy(logits, targets, ignore_index=ignore, reduction="sum")
    right = (logits.detach().argmax(-1) == targets).sum()  # a negative number is never an argmax
    return loss, torch.stack([right, (targets != ignore).sum()])


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
        from mechbench.ops.cross_entropy.kernels import loss_and_gradient

        loss, grad, counts = loss_and_gradient(logits, targets, ignore)
        ctx.save_for_backward(grad)
        ctx.mark_non_differentiable(counts)
        return loss, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return (grad * dloss).to(grad.dtype), None, None
