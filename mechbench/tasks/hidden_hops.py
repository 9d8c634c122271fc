"""K-hop's best guess: where hops lead among symbols that are not seen."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=8)
def hidden_hops(n_symbols: int, max_hops: int, most: int) -> Tensor:
    """Return (most + 1, max_hops + 1, 4) float64: what m hidden symbols and n hops give.

    From a place with the symbol x, behind which the last symbol seen, y != x, stands before all
    that is hidden: the probabilities that the answer is x, that it is y, that it is one given other
    symbol, and that it is `none`. Backwards, the next symbol is x with p = 1 / (S - 1). Then a hop
    is done, and leads to the place of y; else it is any but x and y, and x is still looked for.

    Args:
        n_symbols: S, of which no two neighbours are equal.
        max_hops: the largest n.
        most: the largest m.
    """
    import torch

    S, p = n_symbols, 1 / (n_symbols - 1)
    none = torch.tensor([0.0, 0, 0, 1]).double().repeat(max_hops + 1, 1)
    none[0] = torch.tensor([1.0, 0, 0, 0])  # without a hop it is x
    rows = [none]
    for _ in range(most):
        x, y, other, nothing = rows[-1].unbind(1)
        missed = torch.stack([x, other, (y + (S - 3) * other) / (S - 2), nothing], 1)
        row = rows[-1].clone()
        row[1:] = p * rows[-1][:-1, [1, 0, 2, 3]] + (1 - p) * missed[1:]
        rows.append(row)
    return torch.stack(rows)
