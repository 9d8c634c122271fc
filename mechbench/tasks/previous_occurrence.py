"""Where each entry of a row occurred before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.tasks.base import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor


def previous_occurrence(ids: Tensor, n: int = 1) -> Tensor:
    """Return (B, P) int64: index of the n-th last earlier entry with the same id, -1 if none.

    It sorts, so the cost does not depend on the number of distinct ids.
    """
    import torch

    if n >= ids.shape[1]:
        return torch.full_like(ids, UNKNOWN, dtype=torch.int64)
    order = torch.sort(ids, dim=1, stable=True)
    same = order.values[:, n:] == order.values[:, :-n]
    before = torch.where(same, order.indices[:, :-n], UNKNOWN)
    before = torch.nn.functional.pad(before, (n, 0), value=UNKNOWN)
    return torch.empty_like(before).scatter_(1, order.indices, before)
