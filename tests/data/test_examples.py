from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mechbench.data import streams
from mechbench.data.examples import TrainExamples
from mechbench.data.streams import TrainStream, Unseen
from mechbench.data.train_set import TrainSet
from mechbench.tasks.base import IGNORE, Batch
from mechbench.tasks.recall import Recall

TASK, B = Recall(8, 10), 4
Make = Callable[[], TrainStream | TrainSet]
MAKE: dict[str, Make] = {
    "stream": lambda: TrainStream(TASK, B, 0, "cpu"),
    "set": lambda: TrainSet(TASK, 10, B, 0, "cpu"),
}


@pytest.fixture(params=MAKE)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(streams, "_BLOCK_TOKENS", 2 * B * TASK.input_seqlen)  # two steps a block
    return MAKE[request.param]


@pytest.mark.parametrize("loss_on", ["both", "dense", "scored"])
def test_are_the_stream_s_batches_without_targets_where_an_example_is_held_out(
    make: Make, loss_on: str
) -> None:
    batches = [make().batch(step) for step in range(5)]
    held_out = [batches[i].map(lambda tensor: tensor[1:2]) for i in (0, 3)]
    unseen = Unseen.of(held_out, "cpu")
    examples = TrainExamples(make(), loss_on=loss_on, unseen=unseen)
    dropped = 0
    for step in (0, 1, 2, 3, 4, 2):  # also one of a block before
        batch, got = batches[step], examples.at(step)
        fresh = unseen(batch.inputs)
        sets = {"dense": [batch.dense_targets], "scored": [batch.targets]}
        sets["both"] = [*sets["dense"], *sets["scored"]]
        assert torch.equal(got.inputs, batch.inputs)
        assert torch.equal(got.held_out, ~fresh)
        found = got.targets.unbind(1) if loss_on == "both" else [got.targets]
        for targets, asked in zip(found, sets[loss_on], strict=True):
            assert torch.equal(targets, torch.where(fresh[:, None], asked, IGNORE))
        dropped += int(got.held_out.sum())
    assert dropped >= 2


def test_nothing_is_compared_where_nothing_can_be_held_out(make: Make) -> None:
    got, batch = TrainExamples(make(), loss_on="scored", unseen=None).at(1), make().batch(1)
    assert got.held_out is None
    assert torch.equal(got.targets, batch.targets)


def test_a_block_is_compared_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    own = Unseen.__call__

    def counted(self: Unseen, inputs: Tensor) -> Tensor:
        compared.append(len(inputs))
        return own(self, inputs)

    monkeypatch.setattr(Unseen, "__call__", counted)
    examples = TrainExamples(make(), loss_on="scored", unseen=Unseen.of([], "cpu"))
    for step in range(4):
        examples.at(step)
    assert compared in ([2 * B, 2 * B], [10])  # blocks of a stream; the whole set


def test_what_is_all_scored_is_one_set(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = TrainExamples(make(), loss_on="both", unseen=None).at(0).targets
    assert asked.shape == (B, 2, TASK.input_seqlen)
    sample = Recall.sample

    def scored(task: Recall, n: int, generator: torch.Generator) -> Batch:
        batch = sample(task, n, generator)
        return Batch(batch.inputs, batch.targets, batch.targets)

    monkeypatch.setattr(Recall, "sample", scored)
    one = TrainExamples(make(), loss_on="both", unseen=None).at(0).targets
    assert one.shape == asked[:, 0].shape
