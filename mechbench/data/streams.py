"""The stream of batches of a task; each batch is a pure function of (seed, split, step)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mechbench.record.seeds import derive
from mechbench.tasks.base import Batch, Task

Split = Literal["train", "validation", "test"]
_BLOCK_TOKENS = 1 << 19  # training batches are drawn about this many tokens at a time
_CHUNK_TOKENS = 1 << 22  # evaluation sets are drawn in chunks of this size, each its own step
_DRAWERS = 8  # chunks drawn in parallel


def draw(
    task: Task, batch_size: int, seed: int, split: Split, step: int, device: str | torch.device
) -> Batch:
    """Draw the batch of (seed, split, step) on `device`.

    Training and test examples come from independent streams; `Unseen` finds those that coincide.
    """
    generator = torch.Generator(device)
    generator.manual_seed(derive(seed, type(task).__name__, repr(task), split, step))
    return task.sample(batch_size, generator)


class TrainStream:
    """Training batches by step, drawn on the training device in blocks of several steps.

    On a GPU, drawing many short examples takes no more kernel launches than drawing few. The block
    size depends only on the task and the batch size, so a step's batch is the same wherever a run
    starts or resumes.
    """

    def __init__(self, task: Task, batch_size: int, seed: int, device: str | torch.device) -> None:
        self._task, self._batch_size, self._seed, self._device = task, batch_size, seed, device
        self._steps = max(1, _BLOCK_TOKENS // (batch_size * task.input_seqlen))
        self._block: tuple[int, Batch] | None = None

    def at(self, step: int) -> tuple[Batch, slice]:
        """Return the block that holds the batch of `step`, and its rows there."""
        number, offset = divmod(step, self._steps)
        if self._block is None or self._block[0] != number:
            size = self._batch_size * self._steps
            drawn = draw(self._task, size, self._seed, "train", number, self._device)
            self._block = number, drawn
        return self._block[1], slice(offset * self._batch_size, (offset + 1) * self._batch_size)

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`."""
        block, rows = self.at(step)
        return block.map(lambda tensor: tensor[rows])


def evaluation_sizes(task: Task, n_examples: int) -> list[int]:
    """Return the examples of each batch of an evaluation set.

    The chunk size is part of the set's definition: it depends only on the task, not on memory.
    """
    chunk = max(1, _CHUNK_TOKENS // task.input_seqlen)
    return [min(chunk, n_examples - start) for start in range(0, n_examples, chunk)]


def evaluation_batches(task: Task, n_examples: int, seed: int, split: Split) -> list[Batch]:
    """Draw an evaluation set on the CPU, so that every device scores the same examples."""
    sizes = evaluation_sizes(task, n_examples)
    with ThreadPoolExecutor(_DRAWERS) as drawers:
        return list(
            drawers.map(
                lambda step: draw(task, sizes[step], seed, split, step, "cpu"), range(len(sizes))
            )
        )


@dataclass
class Unseen:
    """Tells training examples that are in no evaluation set from those that are in one.

    Streams share examples by chance if a task has few distinct ones (a small vocabulary and short
    sequences). Rows are compared by a 63-bit polynomial hash, on the training device.
    """

    weights: Tensor  # (L_in,) int64, or (L_in d,) where a position is d numbers
    held_out: Tensor  # sorted hashes

    @classmethod
    def of(
        cls, batches: list[Batch], device: str | torch.device, apart_by: int | None = None
    ) -> Unseen:
        """Hash every row of `batches`, all of one length; without batches, every row is unseen.

        Args:
            batches: of the evaluation sets.
            device: of training.
            apart_by: tokens that are compared, from the first on; None for all of a row.
        """
        if not batches:
            zero = torch.zeros(1, dtype=torch.int64, device=device)
            return cls(zero, zero + 1)  # every row hashes to 0
        length = _integers(batches[0].inputs).shape[1]
        generator = torch.Generator().manual_seed(derive(0, "row hash", length))
        weights = torch.randint(1 << 31, (length, 2), generator=generator)
        weights = weights[:, 0] * (1 << 32) + weights[:, 1] * 2 + 1
        if apart_by is not None:
            weights[apart_by:] = 0
        held_out = (
            torch.cat([(_integers(b.inputs) * weights).sum(1) for b in batches]).sort().values
        )
        return cls(weights.to(device), held_out.to(device))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return (B,) bool: the row is in no evaluation set. Never synchronises the device."""
        rows = (_integers(inputs) * self.weights).sum(1)
        at = torch.searchsorted(self.held_out, rows).clamp_max(len(self.held_out) - 1)
        return self.held_out[at] != rows


def _integers(inputs: Tensor) -> Tensor:
    """Return the tokens, or the bits of (B, L, d) numbers as (B, L d) integers."""
    return inputs.view(torch.int32).flatten(1) if inputs.is_floating_point() else inputs
