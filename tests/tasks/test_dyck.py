from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import required_context, shortcut_accuracies
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.dyck import Dyck

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 17, "seqlen": 64},
    {"vocab_size": 20, "seqlen": 256, "n_kinds": 3, "max_depth": 40},
)


def sample(task: Dyck, n: int, seed: int = 0) -> tuple[list[list[int]], ...]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return tuple(t.tolist() for t in (batch.inputs, batch.targets, batch.dense_targets))


def test_the_example_of_the_docstring() -> None:
    task, n = Dyck(5, 8, 2, 2), UNKNOWN
    answers = task.oracle(torch.tensor([[0, 1, 2, 0, 2, 2, 1, 2]]))[0].tolist()
    assert answers == [n, n, 4, n, 3, 3, n, 4]
    assert [task.describe(t) for t in range(5)] == ["(1", "(2", ")", ")1", ")2"]


@st.composite
def tasks(draw: st.DrawFn) -> Dyck:
    kinds = draw(st.integers(2, 9))
    vocab_size = 2 * kinds + draw(st.integers(1, 4))
    pairs = draw(st.integers(1, 40))
    return Dyck(vocab_size, 2 * pairs, kinds, draw(st.integers(0, min(pairs, 20))))


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: Dyck, seed: int) -> None:
    k = task.n_kinds
    for inputs, targets, dense in zip(*sample(task, 8, seed), strict=True):
        assert len(inputs) == task.seqlen
        stack: list[int] = []
        expected = []
        for token in inputs:
            assert 0 <= token <= k
            if token < k:
                stack.append(token)
                expected.append(IGNORE)
            else:
                expected.append(stack.pop() + k + 1)
            assert len(stack) <= task.depth
        assert not stack
        assert dense == expected
        scored = task.apart_by - 1
        assert targets == [IGNORE] * scored + dense[scored:]
        assert targets[-1] != IGNORE


def test_kinds_are_uniform_and_depths_those_of_a_reflected_walk() -> None:
    kinds, depths = torch.zeros(4), torch.zeros(4)
    for inputs in sample(Dyck(9, 400, 4, 3), 500)[0]:
        steps = [1 if token < 4 else -1 for token in inputs]
        depths += torch.bincount(torch.tensor(steps).cumsum(0), minlength=4)
        kinds += torch.bincount(torch.tensor(inputs), minlength=5)[:4]
    torch.testing.assert_close(kinds / kinds.sum(), torch.full((4,), 0.25), rtol=0, atol=0.01)
    expected = torch.tensor([1, 2, 2, 1]) / 6
    torch.testing.assert_close(depths / depths.sum(), expected, rtol=0, atol=0.01)


def test_without_a_bound_all_orders_of_steps_fold_to_the_same_share() -> None:
    """Of the 6 orders of 2 steps up and 2 down, 4 stay within one of 0."""
    shapes = [
        "".join("(" if t < 2 else ")" for t in row) for row in sample(Dyck(5, 4, 2, 2), 6000)[0]
    ]
    assert shapes.count("()()") / 6000 == pytest.approx(2 / 3, abs=0.02)
    assert shapes.count("(())") / 6000 == pytest.approx(1 / 3, abs=0.02)


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 30))
def test_a_window_tells_the_brackets_opened_in_it(task: Dyck, seed: int, window: int) -> None:
    batch = task.sample(6, torch.Generator().manual_seed(seed))
    k = task.n_kinds
    for end in range(window, task.seqlen + 1):
        answers = task.oracle(batch.inputs[:, end - window : end])[:, -1].tolist()
        for x, told in zip(batch.inputs[:, end - window : end].tolist(), answers, strict=True):
            stack: list[int] = []
            answer = UNKNOWN
            for token in x:
                answer = UNKNOWN
                if token < k:
                    stack.append(token)
                elif stack:
                    answer = stack.pop() + k + 1
            assert told == answer


def test_shortcuts_see_no_nesting() -> None:
    task = Dyck(17, 8)
    row = torch.tensor([[1, 2, 3, 8, 4, 8, 8, 8]])  # 4 closes, 5 closes, then 3 and 2
    guess = {name: rule(row)[0, [3, 5, 6, 7]].tolist() for name, rule in task.shortcuts.items()}
    assert guess["last opened"] == [12, 13, 13, 13]
    assert guess["n-th last opened, n-th closed"] == [12, 13, 12, 11]
    assert task.oracle(row)[0, [3, 5, 6, 7]].tolist() == [12, 13, 11, 10]


def test_shortcuts_and_required_context_of_the_default() -> None:
    task = Dyck(17, 64)
    batch = task.sample(1000, torch.Generator().manual_seed(0))
    found = shortcut_accuracies(task, batch)
    assert 0.58 < found["last opened"] < 0.65
    assert 0.73 < found["n-th last opened, n-th closed"] < 0.8
    assert required_context(task, batch)[16] < 0.93


def test_beginnings_of_40_bits_are_kept_apart() -> None:
    assert Dyck(17, 64).apart_by == 17
    assert Dyck(5, 64, 2, 1).apart_by == 64  # 80 tokens have 40 bits
    assert Dyck(17, 8).apart_by == 8


def test_sizes() -> None:
    assert make_task("dyck").vocab_size == 17
    assert make_task("dyck", n_kinds=128).vocab_size == 257


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 16}, "vocab_size is 16: dyck .* needs at least 17"),
        (ConfigError, {"n_kinds": 1}, "n_kinds is 1: expected at least 2"),
        (ConfigError, {"max_depth": -1}, "max_depth is -1: expected 0, for the default, or more"),
        (ConfigError, {"max_depth": 33}, "max_depth is 33: 64 brackets are at most 32 deep"),
        (SeqlenError, {"seqlen": 63}, "seqlen is 63: dyck .* the nearest is 64"),
        (SeqlenError, {"seqlen": 0}, "the nearest is 2"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Dyck(**{"vocab_size": 17, "seqlen": 64, **given})
    with pytest.raises(ConfigError):
        make_task("dyck", n_kinds="many")
