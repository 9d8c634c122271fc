"""What a training step reads: inputs, and targets but of examples that are held out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mechbench.data.streams import TrainStream, Unseen
from mechbench.data.train_set import TrainSet
from mechbench.tasks.base import IGNORE, Batch

# Of the loss: the mean over all targets that are determined, and that over those that are scored.
# The many teach a mechanism soonest, but of recall at a distance they say nothing: 1 of 1,024
# positions is far. By the first alone hyena had 7 % there after 300 M tokens, with these shares it
# solves it in 22 to 48 M; by halves, or by the second alone, recall itself is learnt more slowly.
SHARES = 0.9, 0.1


class Examples(NamedTuple):
    """A batch, or a block of several steps' batches.

    Attributes:
        inputs: (B, L) or (B, L, d).
        targets: (B, L), or (B, 2, L), all that are determined and those that are scored; -100 where
            there is none, and in examples that stand in an evaluation set.
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
        loss_on: "dense", every target that is determined, "scored", or "both".
        unseen: tells what is in no evaluation set; None where nothing can be.
    """

    def __init__(
        self, stream: TrainStream | TrainSet, *, loss_on: str, unseen: Unseen | None
    ) -> None:
        self._stream, self._loss_on, self._unseen = stream, loss_on, unseen
        self._made: tuple[Batch, Examples] | None = None

    def at(self, step: int) -> Examples:
        """Return the examples of `step`."""
        block, rows = self._stream.at(step)
        if self._made is None or self._made[0] is not block:
            self._made = block, self._examples(block)
        inputs, targets, held_out = self._made[1]
        return Examples(inputs[rows], targets[rows], None if held_out is None else held_out[rows])

    def _examples(self, block: Batch) -> Examples:
        targets = self._targets(block)
        if self._unseen is None:
            return Examples(block.inputs, targets, None)
        held_out = ~self._unseen(block.inputs)
        rows = held_out.view(-1, *[1] * (targets.dim() - 1))
        return Examples(block.inputs, targets.masked_fill(rows, IGNORE), held_out)

    def _targets(self, block: Batch) -> Tensor:
        if self._loss_on == "scored":
            return block.targets
        if self._loss_on == "dense" or block.targets is block.dense_targets:
            return block.dense_targets
        return torch.stack([block.dense_targets, block.targets], 1)
