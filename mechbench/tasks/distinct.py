"""Drawing without replacement, for many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges


def draw_wide(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw uniform int64 in [0, 2^48), so wide that ties do not matter, from two stable draws."""
    import torch

    high, low = (
        torch.randint(_RANGE, shape, generator=generator, device=generator.device) for _ in range(2)
    )
    return high * _RANGE + low


def draw_distinct(rows: int, n: int, among: int, generator: torch.Generator) -> Tensor:
    """Draw (rows, n) distinct numbers in [0, among), every ordered choice equally likely.

    Where `among` is large, repeated entries are redrawn. Which entries are redrawn depends only on
    which are equal, never on their values, so no choice is favoured.
    """
    import torch

    if among <= 4 * n:
        return draw_wide((rows, among), generator).argsort(1)[:, :n]
    device = generator.device
    numbers = torch.randint(among, (rows, n), generator=generator, device=device)
    pending = torch.arange(rows, device=device)
    while len(pending):
        some = numbers[pending]
        order = some.sort(stable=True, dim=1)
        again = torch.zeros_like(some, dtype=torch.bool)
        again.scatter_(1, order.indices[:, 1:], order.values[:, 1:] == order.values[:, :-1])
        pending = pending[again.any(1)]
        some, again = some[again.any(1)], again[again.any(1)]
        fresh = torch.randint(among, some.shape, generator=generator, device=device)
        numbers[pending] = torch.where(again, fresh, some)
    return numbers
