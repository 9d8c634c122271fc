"""How many cells share a GPU, where nobody says it.

A small cell leaves a GPU idle most of the time: what stands around its steps, scores, files and the
start of its kind, is the processor's work. Cells in several processes fill those gaps for each
other, and no fault in one reaches another. The lanes of one process (`mechbench.training.lane`)
let their steps overlap on the GPU too, where processes take turns, but run Python one at a time:
measured on an H100 they add a twentieth to processes at length 256 and cost as much at 1,024, so
they are not the default.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechbench.processors import processors
from mechbench.record.config import Config

MOST = 4  # cells: more gained nothing on an H100
EACH = 4  # cells for a worker, at least, or its start costs more than it saves
_TOKENS = 10_000_000  # of a small cell, half a second of training
_WIDTH = 128  # its channels
_SEQLEN = 1024


def cells_a_gpu(configs: Sequence[Config], gpus: int = 1) -> int:
    """Return how many of these cells to run at once on each of some GPUs."""
    small = sum(map(is_small, configs))
    if 2 * small < len(configs):
        return 1
    return max(1, min(MOST, (processors() - 1) // gpus, small // (EACH * gpus)))


def is_small(config: Config) -> bool:
    """Return whether a cell's steps take a GPU no longer than what stands around them."""
    return (
        config.device_type == "cuda"
        and config.budget_tokens <= _TOKENS
        and config.d_model <= _WIDTH
        and config.seqlen <= _SEQLEN
    )
