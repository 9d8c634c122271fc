"""Keeping the three streams of a task apart: training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mechbench.data.streams import TrainStream, Unseen, draw
from mechbench.data.train_set import TrainSet
from mechbench.errors import ConfigError
from mechbench.tasks.base import Batch, Task

_REDRAWS = 8  # rounds of redrawing validation examples that are in the test set
_PROBED_STEPS = 16  # training steps examined
_EXCLUDED = 0.99  # share of excluded examples above which there is nothing to train on


@dataclass(frozen=True)
class HeldOut:
    """What training must not see.

    Attributes:
        validation: examples that are not in the test set.
        unseen: marks training examples that are in neither set.
        note: one line saying how many validation examples are missing; empty if none.
    """

    validation: list[Batch]
    unseen: Unseen
    note: str


def keep_apart(
    task: Task, validation: list[Batch], test: list[Batch], seed: int, device: str
) -> HeldOut:
    """Replace the examples of `validation` that are in `test` by newly drawn ones.

    The test set stays as it is. Examples coincide only if a task has few distinct ones;
    replacements come from later steps of the validation stream. A task that by definition asks the
    same in training and test is left as it is.

    Raises:
        ConfigError: every validation example is in the test set.
    """
    if task.train_is_test:
        return HeldOut(validation, Unseen.of([], device), "")
    apart_by = None if task.input_dim else task.apart_by
    not_tested = Unseen.of(test, "cpu", apart_by)
    kept, missing = [], 0
    for batch in validation:
        fresh = not_tested(batch.inputs)
        missing += int((~fresh).sum())
        kept.append(batch if fresh.all() else _rows(batch, fresh))
    wanted = sum(len(batch.inputs) for batch in validation)
    for step in range(len(validation), len(validation) + _REDRAWS):
        if not missing:
            break
        more = draw(task, min(wanted, 4 * missing), seed, "validation", step, "cpu")
        more = _rows(more, not_tested(more.inputs))
        more = more.map(lambda tensor: tensor[:missing])  # noqa: B023 (called at once)
        kept.append(more)
        missing -= len(more.inputs)
    kept = [batch for batch in kept if len(batch.inputs)]
    if not kept:
        raise ConfigError(
            f"{task!r} has so few distinct examples that all {wanted} of validation are in the "
            "test set: a larger seqlen or vocab_size, or a smaller n_test, leaves some"
        )
    note = (
        f"{wanted - missing} validation examples instead of {wanted}: the task has few distinct "
        "ones, and those of the test set are left out"
    )
    return HeldOut(kept, Unseen.of([*kept, *test], device, apart_by), note if missing else "")


def check_something_to_train_on(
    task: Task, unseen: Unseen, n_train: int, batch_size: int, seed: int, device: str
) -> None:
    """Check that the first training batches of `task` hold examples to train on.

    Raises:
        ConfigError: nearly all of their examples are in an evaluation set.
    """
    if n_train:
        stream: TrainSet | TrainStream = TrainSet(task, n_train, batch_size, seed, device)
    else:
        stream = TrainStream(task, batch_size, seed, device)
    drawn = excluded = 0
    for step in range(_PROBED_STEPS):
        fresh = unseen(stream.batch(step).inputs)
        drawn += len(fresh)
        excluded += int((~fresh).sum())
        if excluded <= _EXCLUDED * drawn:
            return
    raise ConfigError(
        f"{task!r} has so few distinct examples that {excluded} of the first {drawn} training "
        "examples are in the validation or test set, so that nothing is left to train on: a "
        "larger seqlen or vocab_size, or a smaller n_test and n_validation, leaves more"
    )


def _rows(batch: Batch, mask: torch.Tensor) -> Batch:
    return batch.map(lambda tensor: tensor[mask])
