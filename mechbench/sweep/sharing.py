"""How many cells share a GPU, where nobody says it, and how.

A small cell leaves a GPU idle most of the time: what stands around its steps, scores, files and the
start of its kind, is the processor's work. Cells in several processes fill those gaps for each
other, and no fault in one reaches another. The lanes of one process (`mechbench.training.lane`)
let their steps overlap on the GPU too, where processes take turns, but run Python one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechbench.processors import processors
from mechbench.record.config import Config

MOST = 4  # cells: more gained nothing on an H100
LANES = 1  # a worker, of small cells; more only once that is measured to be faster
EACH = 4  # cells for a worker, at least, or its start costs more than it saves
_TOKENS = 10_000_000  # of a small cell, half a second of training
_WIDTH = 128  # its channels
_SEQLEN = 1024


def cells_a_gpu(configs: Sequence[Config], gpus: int = 1) -> int:
    """Return how many of these cells to run at once on each of some GPUs."""
    small = _small_most(configs)
    return max(1, min(MOST, (processors() - 1) // gpus, small // (EACH * gpus)))


def lanes_a_worker(configs: Sequence[Config]) -> int:
    """Return how many of these cells to run at once in each worker process."""
    return LANES if _small_most(configs) else 1


def _small_most(configs: Sequence[Config]) -> int:
    """Return how many cells are small, or 0 if most are not."""
    small = sum(map(is_small, configs))
    return small if 2 * small >= len(configs) else 0


def is_small(config: Config) -> bool:
    """Return whether a cell's steps take a GPU no longer than what stands around them."""
    return (
        config.device_type == "cuda"
        and config.budget_tokens <= _TOKENS
        and config.d_model <= _WIDTH
        and config.seqlen <= _SEQLEN
    )
