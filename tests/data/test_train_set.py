from __future__ import annotations

import torch

from mechbench.data.streams import draw
from mechbench.data.train_set import TrainSet
from mechbench.tasks.recall import Recall

TASK, N, B = Recall(20, 64), 21, 4


def rows(step: int, seed: int = 0) -> list[tuple[int, ...]]:
    batch = TrainSet(TASK, N, B, seed, "cpu").batch(step)
    assert batch.inputs.shape == batch.targets.shape == batch.dense_targets.shape == (B, 66)
    assert torch.equal(TASK.oracle(batch.inputs)[:, -1], batch.targets[:, -1])
    return [tuple(row) for row in batch.inputs.tolist()]


def test_every_epoch_holds_examples_of_the_set_once_in_another_order() -> None:
    whole = {tuple(row) for row in draw(TASK, N, 0, "train", 0, "cpu").inputs.tolist()}
    epochs = [[row for step in range(5) for row in rows(5 * e + step)] for e in range(4)]
    for epoch in epochs:
        assert len(set(epoch)) == 5 * B
        assert set(epoch) <= whole
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert set().union(*epochs) == whole  # none is left out of every epoch


def test_batch_depends_on_seed_and_step_alone() -> None:
    one = TrainSet(TASK, N, B, 0, "cpu")
    for step in (7, 2, 13):
        assert [tuple(row) for row in one.batch(step).inputs.tolist()] == rows(step)
    assert rows(3, seed=1) != rows(3)
