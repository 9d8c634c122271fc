"""Random inputs, as operators have them."""

from __future__ import annotations

import torch
from torch import Tensor

B, H = 2, 2


def inputs(L: int, K: int, P: int, heads: int, decay: str) -> list[Tensor | None]:
    """Return q, k, v and log decays, in float64."""
    generator = torch.Generator().manual_seed(L + K + P)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    g = {
        "none": None,
        "constant": torch.tensor([-0.01, -0.7]).double()[:, None],
        "step": -normal(B, H, L).square(),
    }[decay]
    q, k = (normal(B, L, heads, K).transpose(1, 2) for _ in range(2))  # as operators have them
    return [q, k, normal(B, L, H, P).transpose(1, 2), g]
