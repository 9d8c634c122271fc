"""Examples of varying length in one batch, see `Task.min_seqlen`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechbench.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def check_min_seqlen(min_seqlen: int, seqlen: int, least: int) -> None:
    """Check the range of lengths of a task whose shortest example has `least` tokens.

    Raises:
        ConfigError: it is not within [least, seqlen], nor 0.
    """
    if min_seqlen and not least <= min_seqlen <= seqlen:
        nearest = min(max(min_seqlen, least), seqlen)
        raise ConfigError(
            f"min_seqlen is {min_seqlen}: expected 0, for seqlen alone, or {least} to seqlen "
            f"({seqlen}); the nearest is {nearest}"
        )


def draw_lengths(
    batch_size: int, min_seqlen: int, seqlen: int, generator: torch.Generator
) -> Tensor:
    """Return (B, 1) int64: lengths uniform in [min_seqlen, seqlen], or all seqlen if that is 0."""
    import torch

    return torch.randint(
        min_seqlen or seqlen, seqlen + 1, (batch_size, 1), generator=generator,
        device=generator.device,
    )  # fmt: skip
