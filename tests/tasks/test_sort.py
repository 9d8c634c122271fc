from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import shortcut_accuracies
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.sort import Sort

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 66, "seqlen": 64},
    {"vocab_size": 20, "seqlen": 100, "min_seqlen": 10},
)


def sample(task: Sort, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert batch.dense_targets is batch.targets
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[5, 2, 6, 2, 7, 2, 2, 5, 0, 0]])
    n = UNKNOWN
    assert Sort(8, 5, 2).oracle(inputs)[0].tolist() == [n, n, n, n, 2, 2, 5, 6, n, n]


@st.composite
def tasks(draw: st.DrawFn) -> Sort:
    seqlen = draw(st.integers(2, 40))
    return Sort(
        draw(st.integers(4, 40)), seqlen, draw(st.sampled_from([0, 2, seqlen // 2 + 1, seqlen]))
    )


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: Sort, seed: int) -> None:
    V, L = task.vocab_size, task.seqlen
    for inputs, targets in sample(task, 8, seed):
        assert len(inputs) == 2 * L
        n = inputs.index(V - 1)
        assert (task.min_seqlen or L) <= n <= L
        assert all(1 <= token <= V - 2 for token in inputs[:n])
        ordered = sorted(inputs[:n])
        assert inputs[n:] == [V - 1, *ordered[:-1], *[0] * (2 * (L - n))]
        assert targets == [IGNORE] * n + ordered + [IGNORE] * (2 * (L - n))


def test_numbers_and_lengths_are_uniform() -> None:
    numbers, lengths = torch.zeros(6), torch.zeros(11)
    for inputs, _ in sample(Sort(8, 10, 5), 6000):
        n = inputs.index(7)
        lengths[n] += 1
        numbers += torch.bincount(torch.tensor(inputs[:n]) - 1, minlength=6)
    torch.testing.assert_close(numbers / numbers.sum(), torch.full((6,), 1 / 6), rtol=0, atol=0.008)
    torch.testing.assert_close(lengths[5:] / 6000, torch.full((6,), 1 / 6), rtol=0, atol=0.02)


def sure(task: Sort, seen: list[int], end: int) -> int:
    """Try all hidden numbers and lengths; return the answer if it is always the same."""
    V, L = task.vocab_size, task.seqlen
    last = seen[-1] if seen[-1] < V - 1 else 0
    if V - 1 not in seen:
        return last if last == V - 2 else UNKNOWN
    mark = seen.index(V - 1)
    visible, named = seen[:mark], seen[mark + 1 :]
    hidden = named.copy()
    for number in visible:
        if number in hidden:
            hidden.remove(number)
    rest = visible.copy()
    for number in named:
        if number in rest:
            rest.remove(number)
    free = L - mark - len(hidden)  # numbers that may be hidden besides
    answers = {min([*rest, *more]) for more in [[], *[[x] for x in range(max(last, 1), V - 1)]]
               if len(more) <= free and (rest or more)}  # fmt: skip
    return answers.pop() if len(answers) == 1 else UNKNOWN


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 50))
def test_a_window_tells_what_no_hidden_number_changes(task: Sort, seed: int, window: int) -> None:
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    for end in range(window, 2 * task.seqlen):
        rows = batch.targets[:, end - 1] != IGNORE
        seen = batch.inputs[rows, end - window : end]
        answers = task.oracle(seen)[:, -1].tolist()
        right = batch.targets[rows, end - 1].tolist()
        for x, told, answer in zip(seen.tolist(), answers, right, strict=True):
            assert told in {answer, UNKNOWN}
            if window < end:
                assert told == sure(task, x, end)


def test_guesses_weigh_what_is_hidden() -> None:
    task = Sort(12, 6)  # numbers 1 to 10, `=>` = 11
    # All but one of six seen: the hidden one is 1 or 2 with 2/10, and else the answer is 3.
    assert task.window_guess(torch.tensor([[9, 3, 7, 5, 8, 11]]), torch.tensor([6])).tolist() == [3]
    # Nothing seen but the last: of four left, one is more likely to be the next than the same.
    assert task.window_guess(torch.tensor([[4]]), torch.tensor([8])).tolist() == [5]
    # At 9, 4 of 10 suggests six numbers, of which three are named: for the rest the same holds.
    assert Sort(12, 9, 3).window_guess(torch.tensor([[4]]), torch.tensor([9])).tolist() == [5]


def test_shortcuts_at_the_default_and_with_many_equal_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    task, many = Sort(66, 64), Sort(10, 64)
    found = shortcut_accuracies(task, task.sample(500, generator))
    assert all(0.05 < share < 0.45 for share in found.values())
    found = shortcut_accuracies(many, many.sample(500, generator))
    assert found["the last number"] == pytest.approx(1 - 8 / 64, abs=0.01)


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: sort needs at least 4"),
        (SeqlenError, {"seqlen": 1}, "seqlen is 1: sort needs at least 2"),
        (ConfigError, {"min_seqlen": 1}, "min_seqlen is 1: expected 0, .* the nearest is 2"),
        (ConfigError, {"min_seqlen": 65}, "the nearest is 64"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Sort(**{"vocab_size": 20, "seqlen": 64, **given})
