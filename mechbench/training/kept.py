"""What a process keeps of a cell for the next one that differs only in seed or rates.

A step is captured as a CUDA graph once for each shape: a graph works on the memory that it was
captured with. So the next cell of the same kind gets the model and the optimizer of the last, with
the numbers of a new one, and replays from its first step on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mechbench.ops.adamw import FlatAdamW
from mechbench.training.kinds import kind_of
from mechbench.training.optimiser import make_optimizer, parameter_groups
from mechbench.training.step import Graphs

MakeOptimizer = Callable[[nn.Module, float, float], torch.optim.Optimizer]


@dataclass
class Trainer:
    """A model on its device, its optimizer, and the steps captured for both."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    graphs: Graphs = field(default_factory=Graphs)
    peak_memory_mib: float = 0.0  # of the cells so far: a replayed step allocates nothing


class Kept:
    """A process's trainer, for one cell after another.

    Args:
        cells: hand the trainer on from cell to cell, and hold its memory between them; by default
            each cell makes its own.
    """

    def __init__(self, *, cells: bool = False) -> None:
        self._cells = cells
        self._key: tuple[Hashable, ...] = ()
        self._trainer: Trainer | None = None

    @contextmanager
    def trainer(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float,
        setting: Hashable,
        device: str,
        optimizer: MakeOptimizer = make_optimizer,
    ) -> Iterator[Trainer]:
        """Give a trainer of `model` as it is; after an error in the context it is not handed on.

        Args:
            model: freshly built, on the CPU; the trainer's own may be another with its numbers.
            lr: peak learning rate.
            weight_decay: of matrices.
            setting: what else decides what a step computes.
            device: to train on.
            optimizer: makes the optimizer of the schedule. What a schedule keeps beside it is made
                anew for each cell: a captured step touches none of that.
        """
        key = (kind_of(model, of_step=True), setting, device, optimizer) if self._cells else ()
        trainer = self._restarted(key, model, lr, weight_decay)
        self._trainer = None
        if trainer is None:
            if self._cells and device.startswith("cuda"):
                torch.cuda.empty_cache()  # of the last trainer
            model = model.to(device)
            made = optimizer(model, lr, weight_decay)
            trainer = Trainer(model, made, Graphs(keep=self._cells))
        yield trainer
        if self._cells:
            self._key, self._trainer = key, trainer

    def _restarted(
        self, key: tuple[Hashable, ...], model: nn.Module, lr: float, weight_decay: float
    ) -> Trainer | None:
        """Return the trainer of the last cell with the numbers of `model`, if it is of its kind."""
        kept = self._trainer
        if kept is None or key != self._key or not isinstance(kept.optimizer, FlatAdamW):
            return None
        kept.model.train()
        # Its kind now: a plugin's code may have changed an attribute or a buffer.
        if kind_of(kept.model, of_step=True) != key[0]:
            return None
        groups = parameter_groups(model, lr, weight_decay)
        if _layout(kept.model, kept.optimizer.param_groups) != _layout(model, groups):
            return None
        kept.optimizer.restart(groups)
        with torch.no_grad():
            for own, new in zip(_numbers(kept.model), _numbers(model), strict=True):
                own.copy_(new)
        return kept


def _layout(model: nn.Module, groups: Iterable[dict[str, Any]]) -> list[list[int]]:
    """Return the numbers of the parameters of each group."""
    number = {id(p): i for i, p in enumerate(model.parameters())}
    return [[number[id(p)] for p in group["params"]] for group in groups]


def _numbers(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
