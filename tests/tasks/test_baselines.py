from __future__ import annotations

import dataclasses

import pytest
import torch

from mechbench.tasks.base import IGNORE, UNKNOWN, Batch
from mechbench.tasks.baselines import required_context, shortcut_accuracies, windows
from mechbench.tasks.induction import Induction
from mechbench.tasks.recall import Recall


def test_windows_are_powers_of_two_and_the_whole_input() -> None:
    assert windows(10) == [10]
    assert windows(16) == [16]
    assert windows(66) == [16, 32, 64, 66]
    assert windows(131074)[-2:] == [131072, 131074]


@pytest.mark.parametrize("task", [Recall(10, 60), Induction(10, 60, 4, 3)])
def test_required_context_equals_a_plain_loop_over_windows(task: Recall | Induction) -> None:
    batch = task.sample(40, torch.Generator().manual_seed(0))
    found = required_context(task, batch)
    assert list(found) == windows(task.input_seqlen)
    for window, accuracy in found.items():
        points = []
        for row, column in (batch.targets != IGNORE).nonzero().tolist():
            seen = batch.inputs[row : row + 1, max(0, column + 1 - window) : column + 1]
            guess = int(task.oracle(seen)[0, -1])
            right = guess == int(batch.targets[row, column])
            points.append(task.chance if guess == UNKNOWN else float(right))
        assert accuracy == pytest.approx(sum(points) / len(points))


def test_required_context_looks_at_a_few_columns_only() -> None:
    task = Induction(10, 60, 20)
    seen: list[int] = []

    class Counted(Induction):
        def oracle(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(inputs.shape[1])
            return super().oracle(inputs)

    counted = Counted(**dataclasses.asdict(task))
    required_context(counted, task.sample(4, torch.Generator().manual_seed(0)), max_columns=3)
    assert len({length for length in seen if length > 60}) <= 3


def test_shortcuts_are_scored_on_the_targets_alone() -> None:
    task = Recall(8, 8)
    inputs = torch.tensor([[2, 5, 1, 4, 2, 5, 3, 4, 7, 2], [2, 5, 1, 4, 2, 5, 3, 4, 7, 3]])
    targets = torch.full_like(inputs, IGNORE)
    targets[:, -1] = torch.tensor([5, 4])
    found = shortcut_accuracies(task, Batch(inputs, targets, targets))
    assert found["last value"] == 0.5


def test_shortcuts_of_recall_and_induction_are_what_they_say() -> None:
    recall = torch.tensor([[1, 4, 2, 5, 3, 5, 7, 1]])
    predict = Recall(8, 6).shortcuts
    assert predict["most frequent value"](recall)[0, -1] == 5
    assert predict["last value"](recall)[0, -1] == 5
    induction = torch.tensor([[2, 9, 6, 2, 2, 4, 9]])
    predict = Induction(10, 6).shortcuts
    assert predict["most frequent number"](induction)[0, -1] == 2
    assert predict["last number"](induction)[0, -1] == 4
