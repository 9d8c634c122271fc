from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mechbench
from mechbench.data.held_out import check_something_to_train_on, keep_apart
from mechbench.data.streams import Unseen, draw, evaluation_batches
from mechbench.errors import ConfigError
from mechbench.tasks.arithmetic import Arithmetic
from mechbench.tasks.base import Batch
from mechbench.tasks.memorization import Memorization
from mechbench.tasks.recall import Recall


def rows(batches: list[Batch]) -> list[tuple[int, ...]]:
    return [tuple(row) for batch in batches for row in batch.inputs.tolist()]


def test_validation_loses_what_stands_in_the_test_set_and_keeps_its_size() -> None:
    task = Arithmetic(11, 5)
    validation = evaluation_batches(task, 512, 0, "validation")
    test = evaluation_batches(task, 2048, 0, "test")
    tested = set(rows(test))
    assert sum(row in tested for row in rows(validation)) > 90  # one in five
    held_out = keep_apart(task, validation, test, 0, "cpu")
    assert len(rows(held_out.validation)) == 512
    assert not tested & set(rows(held_out.validation))
    assert held_out.note == ""
    # What remains is what there was, in its order; targets go with their inputs.
    remain = [row for row in rows(validation) if row not in tested]
    assert rows(held_out.validation)[: len(remain)] == remain
    for batch in held_out.validation:
        scored = batch.targets >= 0
        assert torch.equal(task.oracle(batch.inputs)[scored], batch.targets[scored])
    train = draw(task, 3000, 0, "train", 0, "cpu").inputs
    known = tested | set(rows(held_out.validation))
    assert held_out.unseen(train).tolist() == [tuple(r) not in known for r in train.tolist()]


def test_validation_without_overlap_stays_as_it_was() -> None:
    task = Recall(20, 64)
    validation = evaluation_batches(task, 100, 3, "validation")
    test = evaluation_batches(task, 200, 3, "test")
    held_out = keep_apart(task, validation, test, 3, "cpu")
    assert [b is v for b, v in zip(held_out.validation, validation, strict=True)] == [True]


def test_a_small_space_is_told_of_in_one_line() -> None:
    task = Arithmetic(11, 3)  # 100 examples
    held_out = keep_apart(
        task,
        evaluation_batches(task, 500, 0, "validation"),
        evaluation_batches(task, 400, 0, "test"),
        0,
        "cpu",
    )
    assert 0 < len(rows(held_out.validation)) < 500
    assert "validation examples instead of 500" in held_out.note
    assert "\n" not in held_out.note
    tiny = Arithmetic(3, 3)  # four examples
    sets = [evaluation_batches(tiny, 100, 0, split) for split in ("validation", "test")]
    with pytest.raises(ConfigError, match="all 100 of validation are in the test set"):
        keep_apart(tiny, *sets, 0, "cpu")


def test_examples_are_kept_apart_by_the_tokens_that_the_task_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Arithmetic, "apart_by", 2)
    task = Arithmetic(11, 9)
    validation, test = (evaluation_batches(task, 60, 0, split) for split in ("validation", "test"))
    held_out = keep_apart(task, validation, test, 0, "cpu")
    begun = {row[:2] for row in rows(test)}
    assert any(row[:2] in begun for row in rows(validation))
    kept = {row[:2] for row in rows(held_out.validation)}
    assert not begun & kept
    train = draw(task, 500, 0, "train", 0, "cpu").inputs
    expected = [tuple(row[:2]) not in begun | kept for row in train.tolist()]
    assert held_out.unseen(train).tolist() == expected
    assert 0 < sum(expected) < 500


def test_a_task_whose_training_is_its_test_is_left_alone() -> None:
    task = Memorization(9, 4)
    validation, test = (evaluation_batches(task, 64, 0, split) for split in ("validation", "test"))
    held_out = keep_apart(task, validation, test, 0, "cpu")
    assert held_out.validation is validation
    assert held_out.unseen(test[0].inputs).all()


@pytest.mark.parametrize("n_train", [0, 40])
def test_training_on_nothing_is_refused(n_train: int) -> None:
    task = Arithmetic(11, 3)
    test = evaluation_batches(task, 2000, 0, "test")
    with pytest.raises(ConfigError, match="320 of the first 320 training examples"):
        check_something_to_train_on(task, Unseen.of(test, "cpu"), n_train, 20, 0, "cpu")
    few = Unseen.of(evaluation_batches(task, 100, 0, "test"), "cpu")
    check_something_to_train_on(task, few, n_train, 20, 0, "cpu")


def test_a_run_without_training_examples_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="so few distinct examples that all 64"):
        mechbench.run(
            "hyena", "arithmetic", seqlen=3, d_model=8, n_layers=1, budget_tokens=20_000,
            batch_size=16, n_test=1000, n_validation=64, device="cpu", out=tmp_path, quiet=True,
        )  # fmt: skip
    assert not list(tmp_path.glob("*/result.json"))


def test_a_run_counts_what_it_excluded(tmp_path: Path) -> None:
    result = mechbench.run(
        "hyena", "arithmetic", seqlen=3, d_model=8, n_layers=1, budget_tokens=2000,
        batch_size=16, n_test=50, n_validation=16, device="cpu", out=tmp_path, quiet=True,
    )  # fmt: skip
    drawn = result.data["steps"] * 16
    assert 0.2 * drawn < result.data["excluded_examples"] < 0.8 * drawn
