"""Where each entry of a row occurred last before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def previous_occurrence(ids: Tensor) -> Tensor:
    """Return (B, L) int64: the latest earlier index in the row that holds the same id, else -1.

    It sorts, so the cost does not depend on the number of distinct ids.
    """
    import torch

    order = ids.sort(stable=True, dim=1)
    before = torch.full_like(order.indices, -1)
    same = order.values[:, 1:] == order.values[:, :-1]
    before[:, 1:] = torch.where(same, order.indices[:, :-1], -1)
    return torch.empty_like(before).scatter_(1, order.indices, before)
