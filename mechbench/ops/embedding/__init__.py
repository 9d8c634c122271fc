"""Rows of a table by token, whose gradient is summed by our own kernel.

PyTorch's gradient sorts the tokens first; for few different ones it takes as long as an operator.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mechbench.ops.triton import unavailable

_MOST = 256  # largest V: the kernel compares every token with every row


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    """Return weight[tokens].

    Args:
        tokens: (...) integers, at least 0 and below V.
        weight: (V, D).

    Returns:
        (..., D) in the dtype of `weight`.
    """
    if len(weight) <= _MOST and tokens.is_cuda and unavailable(weight) is None:
        y: Tensor = _Embedding.apply(tokens, weight)  # type: ignore[no-untyped-call]
        return y
    return F.embedding(tokens, weight)


class Embedding(nn.Embedding):
    """nn.Embedding by `embedding`; for `padding_idx`, `max_norm` and the like take PyTorch's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Look tokens (...) up: (..., D)."""
        return embedding(input, self.weight)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.vocab_size = len(weight)
        return F.embedding(tokens, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor]:
        from mechbench.ops.embedding.kernels import row_sums

        (tokens,) = ctx.saved_tensors
        return None, row_sums(tokens, dy, ctx.vocab_size).to(dy.dtype)
