"""Where each entry of a row first occurred."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def first_occurrence(ids: Tensor) -> Tensor:
    """Return (B, P) int64: for each entry, the first index in its row that holds the same id.

    It sorts, so the cost does not depend on the number of distinct ids.
    """
    import torch

    order = ids.sort(stable=True, dim=1)
    index = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    starts = torch.zeros_like(ids)
    starts[:, 1:] = torch.where(order.values[:, 1:] != order.values[:, :-1], index[:, 1:], 0)
    first = order.indices.gather(1, starts.cummax(1).values)
    return torch.empty_like(first).scatter_(1, order.indices, first)
