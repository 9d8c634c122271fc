"""A guess by exclusion: an answer that cannot be one of those that are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.base import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor


def least_unseen(seen: Tensor, low: int, high: int) -> Tensor:
    """Return (B,): the least token in [low, high) that is not in `seen` (B, n), -1 if all are."""
    import torch

    n = min(high - low, seen.shape[1] + 1)  # one of so many at least is not seen
    index = torch.where((seen >= low) & (seen < low + n), seen - low, n)
    taken = torch.zeros(len(seen), n + 1, dtype=torch.int8, device=seen.device)
    taken.scatter_(1, index, 1)
    least = taken[:, :n].min(1)
    return torch.where(least.values == 0, low + least.indices, UNKNOWN)
