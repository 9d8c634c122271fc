"""Where each entry of a row stood first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def first_occurrence(ids: Tensor) -> Tensor:
    """Return (B, P) int64: the first index of the row that holds the same id.

    By sorting, so the cost does not depend on how many ids there are.
    """
    import torch

    order = ids.sort(stable=True, dim=1)
    index = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    starts = torch.zeros_like(ids)
    starts[:, 1:] = torch.where(order.values[:, 1:] != order.values[:, :-1], index[:, 1:], 0)
    first = order.indices.gather(1, starts.cummax(1).values)
    return torch.empty_like(first).scatter_(1, order.indices, first)
