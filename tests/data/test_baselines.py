from __future__ import annotations

import pytest
import torch

from mechbench.data import baselines
from mechbench.data.baselines import (
    STANDARD_ERROR,
    required_context,
    shortcut_accuracies,
    windows,
)
from mechbench.data.streams import draw
from mechbench.tasks.arithmetic import Arithmetic
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task, matches
from mechbench.tasks.counting import Counting
from mechbench.tasks.fuzzy_recall import FuzzyRecall
from mechbench.tasks.icl_functions import IclFunctions
from mechbench.tasks.induction import Induction
from mechbench.tasks.majority import Majority
from mechbench.tasks.mqar import Mqar
from mechbench.tasks.noisy_recall import NoisyRecall
from mechbench.tasks.recall import Recall
from mechbench.tasks.selective_copying import SelectiveCopying


def test_windows_are_powers_of_two_and_the_whole_input() -> None:
    assert windows(10) == [10]
    assert windows(16) == [16]
    assert windows(66) == [16, 32, 64, 66]
    assert windows(131074)[-2:] == [131072, 131074]


def certainly(cls: type[Task]) -> type[Task]:
    """Return the task without guesses: what it cannot tell counts as chance."""
    return type(cls.__name__, (cls,), {"window_guess": Task.window_guess})


def by_loop(task: Task, batch: Batch, window: int) -> float:
    """Return the share that the oracle tells from the last `window` tokens, one by one."""
    points = []
    for row, column in (batch.targets != IGNORE).nonzero().tolist():
        seen = batch.inputs[row : row + 1, max(0, column + 1 - window) : column + 1]
        guess = task.oracle(seen)[0, -1]
        right = float(matches(guess, batch.targets[row, column]))
        points.append(task.chance if guess == UNKNOWN else right)
    return sum(points) / len(points)


@pytest.mark.parametrize(
    "task",
    [
        Recall(10, 60), certainly(Induction)(10, 60, 4, 3), certainly(FuzzyRecall)(16, 60),
        certainly(Mqar)(64, 60, 6), certainly(NoisyRecall)(24, 60), certainly(Arithmetic)(4, 25),
        certainly(Majority)(4, 20), certainly(IclFunctions)(8, 40), SelectiveCopying(8, 40, 8),
    ],
)  # fmt: skip
def test_required_context_looks_at_every_scored_position(task: Task) -> None:
    batch = task.sample(30, torch.Generator().manual_seed(0))
    found = required_context(task, batch)
    assert list(found) == windows(task.input_seqlen)
    for window, accuracy in found.items():
        assert accuracy == pytest.approx(by_loop(task, batch, window)), window


def test_required_context_of_the_settings_once_published_wrong() -> None:
    def found(task: Task, window: int) -> float:
        return required_context(task, draw(task, 2048, 0, "test", 0, "cpu"))[window]

    # Eight columns for all gave 79.5 and 47.5 percent.
    assert found(certainly(FuzzyRecall)(32, 128), 64) == pytest.approx(0.557, abs=0.005)
    assert found(certainly(Mqar)(8192, 256, 16), 32) == pytest.approx(0.277, abs=0.005)
    # Certainty alone gave chance: 5 and 10 percent.
    assert found(Majority(20, 64), 16) == pytest.approx(0.47, abs=0.02)
    assert found(Counting(20, 64), 16) > 0.2


def test_a_sample_of_positions_errs_by_less_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    task = NoisyRecall(64, 256)
    batch = task.sample(400, torch.Generator().manual_seed(0))
    whole = required_context(task, batch)
    n_scored = int((batch.targets != IGNORE).sum())
    seen = 0

    class Counted(NoisyRecall):
        def oracle(self, inputs: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            seen += len(inputs)
            return super().oracle(inputs)

    monkeypatch.setattr(baselines, "_FREE_TOKENS", 1 << 12)
    monkeypatch.setattr(baselines, "_BLOCK_TOKENS", 1 << 12)
    sampled = required_context(Counted(64, 256), batch)
    assert seen < n_scored
    for window, accuracy in whole.items():
        assert sampled[window] == pytest.approx(accuracy, abs=4 * STANDARD_ERROR)
    assert sampled != whole
    assert sampled == required_context(Counted(64, 256), batch)
    monkeypatch.setattr(baselines, "_POSITIONS", 5000)
    few = required_context(task, batch)
    assert all(few[w] == pytest.approx(whole[w], abs=0.03) for w in whole)


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


def test_no_example_is_solved_whole_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Mqar(64, 256, 16, power=1.0)
    batch = task.sample(20, torch.Generator().manual_seed(0))
    solve, seen = Mqar.oracle, []

    def oracle(self: Mqar, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs.shape)
        return solve(self, inputs)

    monkeypatch.setattr(Mqar, "oracle", oracle)
    assert required_context(task, batch)[256] == 1.0
    assert sum(rows for rows, length in seen if length == 256) == 20
    assert {length for _, length in seen} == {16, 32, 64, 128, 256}
