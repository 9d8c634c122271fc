"""What a training step reads: inputs, and targets but of examples that are held out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mechbench.data.streams import TrainStream, Unseen
from mechbench.data.train_set import TrainSet
from mechbench.tasks.base import IGNORE, Batch


class Examples(NamedTuple):
    """A batch, or a block of several steps' batches.

    Attributes:
        inputs: (B, L) or (B, L, d).
        targets: (B, L), -100 where not scored and in examples that stand in an evaluation set.
        held_out: (B,) bool, whether an example does; None where none can.
    """

    inputs: Tensor
    targets: Tensor
    held_out: Tensor | None


class TrainExamples:
    """The examples of each step, made for all that a stream holds at once.

    Comparing many short examples with the evaluation sets takes a GPU no longer than few.

    Args:
        stream: of batches.
        dense: train on every target that is determined, not only on those that are scored.
        unseen: tells what is in no evaluation set; None where nothing can be.
    """

    def __init__(
        self, stream: TrainStream | TrainSet, *, dense: bool, unseen: Unseen | None
    ) -> None:
        self._stream, self._dense, self._unseen = stream, dense, unseen
        self._made: tuple[Batch, Examples] | None = None

    def at(self, step: int) -> Examples:
        """Return the examples of `step`."""
        block, rows = self._stream.at(step)
        if self._made is None or self._made[0] is not block:
            self._made = block, self._examples(block)
        inputs, targets, held_out = self._made[1]
        return Examples(inputs[rows], targets[rows], None if held_out is None else held_out[rows])

    def _examples(self, block: Batch) -> Examples:
        targets = block.dense_targets if self._dense else block.targets
        if self._unseen is None:
            return Examples(block.inputs, targets, None)
        unseen = self._unseen(block.inputs)
        return Examples(block.inputs, torch.where(unseen[:, None], targets, IGNORE), ~unseen)
