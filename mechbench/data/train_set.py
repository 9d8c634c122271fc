"""A fixed training set of few examples, seen again in every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from mechbench.data.streams import draw
from mechbench.record.seeds import derive
from mechbench.tasks.base import Batch, Task


class TrainSet:
    """Training batches by step from `n_train` examples, in a new order each epoch.

    A step's batch is the same wherever a run starts or resumes. Examples that do not fill a batch
    are left out of that epoch; which ones differs between epochs. The whole set is held on the
    device. Source: the training-set size axis of MAD (Poli et al. 2024, section 3).
    """

    def __init__(
        self, task: Task, n_train: int, batch_size: int, seed: int, device: str | torch.device
    ) -> None:
        self._task, self._n, self._batch_size = task, n_train, batch_size
        self._seed, self._device = seed, device
        self._whole: Batch | None = None
        self._order: tuple[int, Tensor] | None = None

    def at(self, step: int) -> tuple[Batch, Tensor]:
        """Return the whole set, and which of its rows are the batch of `step`."""
        epoch, offset = divmod(step, self._n // self._batch_size)
        if self._whole is None:
            self._whole = draw(self._task, self._n, self._seed, "train", 0, self._device)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive(self._seed, "epoch", epoch))
            order = torch.randperm(self._n, generator=generator)
            self._order = epoch, order.to(self._device)
        rows = self._order[1][offset * self._batch_size : (offset + 1) * self._batch_size]
        return self._whole, rows

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`."""
        whole, rows = self.at(step)
        return whole.map(lambda tensor: tensor[rows])
