"""Guesses that look at no more than how often, or how lately, a token was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.base import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor


def most_frequent(inputs: Tensor, low: int, high: int) -> Tensor:
    """Return (B, L): of the tokens in [low, high), the row's most frequent, at every position."""
    import torch

    kept = ((inputs >= low) & (inputs < high)).float()
    counts = torch.zeros(len(inputs), high - low, device=inputs.device)
    counts.scatter_add_(1, (inputs - low).clamp(0, high - low - 1), kept)
    return counts.argmax(1, keepdim=True).expand_as(inputs) + low


def latest(inputs: Tensor, low: int, high: int) -> Tensor:
    """Return (B, L): the latest token in [low, high) up to each position, -1 before the first."""
    import torch

    position = torch.arange(inputs.shape[1], device=inputs.device)
    at = torch.where((inputs >= low) & (inputs < high), position, -1).cummax(1).values
    return torch.where(at >= 0, inputs.gather(1, at.clamp_min(0)), UNKNOWN)
