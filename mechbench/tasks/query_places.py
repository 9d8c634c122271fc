"""Where the queries of `mqar` and its relatives stand: power-law gaps behind the pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.errors import ConfigError
from mechbench.tasks.distinct import draw_wide

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def check_power(power: float) -> None:
    """Check the exponent of the distribution of gaps.

    Raises:
        ConfigError: it is not above 0 and at most 1.
    """
    if not 0 < power <= 1:
        raise ConfigError(f"power is {power}: expected above 0 and at most 1")


def draw_places(
    rows: int, n: int, n_places: int, power: float, generator: torch.Generator
) -> Tensor:
    """Draw (rows, n) distinct places in [0, n_places), place i with weight (i + 1)^(power - 1).

    One after the other and without replacement: the first n arrivals in a race of exponential
    clocks. Source: Arora et al. 2023 (Zoology), section 3.
    """
    import torch

    weight = torch.arange(1, n_places + 1, device=generator.device).double() ** (power - 1)
    uniform = (draw_wide((rows, n_places), generator) + 1).double() / (1 << 48)
    return (-uniform.log() / weight).topk(n, largest=False).indices
