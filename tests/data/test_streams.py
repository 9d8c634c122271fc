from __future__ import annotations

import pytest
import torch

from mechbench.data import streams
from mechbench.data.streams import TrainStream, Unseen, draw, evaluation_batches, evaluation_sizes
from mechbench.tasks.base import Batch
from mechbench.tasks.icl_functions import IclFunctions
from mechbench.tasks.induction import Induction
from mechbench.tasks.recall import Recall

TASK = Recall(20, 64)


def test_batch_depends_on_seed_split_step_and_task() -> None:
    base = draw(TASK, 8, 0, "train", 0, "cpu").inputs
    assert torch.equal(base, draw(TASK, 8, 0, "train", 0, "cpu").inputs)
    for other in (
        draw(TASK, 8, 1, "train", 0, "cpu"),
        draw(TASK, 8, 0, "validation", 0, "cpu"),
        draw(TASK, 8, 0, "test", 0, "cpu"),
        draw(TASK, 8, 0, "train", 1, "cpu"),
        draw(Recall(20, 64, 10), 8, 0, "train", 0, "cpu"),
    ):
        assert not torch.equal(base, other.inputs)


def test_batch_does_not_depend_on_what_was_drawn_before() -> None:
    expected = draw(TASK, 8, 0, "train", 5, "cpu").inputs
    torch.manual_seed(77)
    for step in range(5):
        draw(TASK, 8, 0, "train", step, "cpu")
    assert torch.equal(draw(TASK, 8, 0, "train", 5, "cpu").inputs, expected)


def test_training_batches_are_drawn_on_the_device(device: str) -> None:
    assert draw(TASK, 4, 0, "train", 0, device).inputs.device.type == device


def test_training_batch_depends_on_the_step_alone_wherever_a_run_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_BLOCK_TOKENS", 66 * 8 * 3)  # three steps a block
    whole = TrainStream(TASK, 8, 0, "cpu")
    batches = [whole.batch(step) for step in range(8)]
    assert len({tuple(b.inputs.flatten().tolist()) for b in batches}) == 8
    for step in (7, 2, 4, 3):  # resumed anywhere, in any order
        again = TrainStream(TASK, 8, 0, "cpu").batch(step)
        for field in ("inputs", "targets", "dense_targets"):
            assert getattr(again, field).shape == (8, 66)
            assert torch.equal(getattr(again, field), getattr(batches[step], field))
    assert not torch.equal(TrainStream(TASK, 8, 1, "cpu").batch(0).inputs, batches[0].inputs)


def test_training_batch_larger_than_a_block_is_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_BLOCK_TOKENS", 10)
    stream = TrainStream(TASK, 8, 0, "cpu")
    assert torch.equal(stream.batch(3).inputs, draw(TASK, 8, 0, "train", 3, "cpu").inputs)


def test_evaluation_set_does_not_depend_on_anything_else() -> None:
    expected = [b.inputs for b in evaluation_batches(TASK, 40, 3, "test")]
    torch.manual_seed(5)
    draw(TASK, 100, 3, "test", 9, "cpu")
    evaluation_batches(Induction(20, 64), 10, 3, "test")
    found = [b.inputs for b in evaluation_batches(TASK, 40, 3, "test")]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(evaluation_batches(TASK, 40, 3, "validation")[0].inputs, expected[0])
    assert not torch.equal(evaluation_batches(TASK, 40, 4, "test")[0].inputs, expected[0])


def test_evaluation_set_is_drawn_in_chunks_of_different_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_CHUNK_TOKENS", 66 * 16)
    batches = evaluation_batches(TASK, 40, 0, "test")
    assert [len(b.inputs) for b in batches] == evaluation_sizes(TASK, 40) == [16, 16, 8]
    assert not torch.equal(batches[0].inputs, batches[1].inputs)
    assert all(b.inputs.device.type == "cpu" for b in batches)
    # a longer input than a chunk still gives whole examples
    monkeypatch.setattr(streams, "_CHUNK_TOKENS", 10)
    assert [len(b.inputs) for b in evaluation_batches(TASK, 3, 0, "test")] == [1, 1, 1]


def test_unseen_marks_exactly_the_rows_that_coincide(device: str) -> None:
    tiny = Recall(6, 6)  # so few examples that streams do coincide
    held_out = [draw(tiny, 20, 0, split, 0, "cpu") for split in ("validation", "test")]
    train = draw(tiny, 500, 0, "train", 0, "cpu").inputs
    known = {tuple(row) for b in held_out for row in b.inputs.tolist()}
    expected = [tuple(row) not in known for row in train.tolist()]
    assert 50 < sum(expected) < 450
    assert Unseen.of(held_out, device)(train.to(device)).tolist() == expected


def test_unseen_tells_rows_apart_that_differ_in_one_token() -> None:
    row = draw(TASK, 1, 0, "test", 0, "cpu").inputs
    unseen = Unseen.of([Batch(row, row, row)], "cpu")
    changed = row.repeat(row.shape[1], 1)
    changed[torch.arange(row.shape[1]), torch.arange(row.shape[1])] += 1
    swapped = row[:, torch.tensor([2, 3, 0, 1, *range(4, row.shape[1])])]
    assert unseen(changed).all()
    assert unseen(swapped).item() == (not torch.equal(swapped, row))
    assert not unseen(row).any()


def test_unseen_compares_no_more_than_the_tokens_that_count(device: str) -> None:
    row = draw(TASK, 1, 0, "test", 0, "cpu").inputs
    unseen = Unseen.of([Batch(row, row, row)], device, apart_by=10)
    changed = row.repeat(row.shape[1], 1)
    changed[torch.arange(row.shape[1]), torch.arange(row.shape[1])] += 1
    expected = [True] * 10 + [False] * (row.shape[1] - 10)
    assert unseen(changed.to(device)).tolist() == expected


def test_nothing_held_out_marks_every_example_as_fresh() -> None:
    inputs = Recall(8, 8).sample(50, torch.Generator().manual_seed(0)).inputs
    assert Unseen.of([], "cpu")(inputs).tolist() == [True] * 50
    assert Unseen.of([], "cpu")(torch.zeros_like(inputs)).all()


def test_unseen_finds_rows_of_numbers_again() -> None:
    held_out, other = (
        IclFunctions(2, 8).sample(20, torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    unseen = Unseen.of([held_out], "cpu")
    assert not unseen(held_out.inputs).any()
    assert unseen(other.inputs).all()
    nearly = held_out.inputs.clone()
    nearly[:, -1, 0] += 1e-3
    assert unseen(nearly).all()
    assert Unseen.of([], "cpu")(held_out.inputs).all()
