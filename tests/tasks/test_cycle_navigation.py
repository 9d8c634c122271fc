from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import UNKNOWN, make_task
from mechbench.tasks.cycle_navigation import CycleNavigation

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"seqlen": 40},
    {"seqlen": 40, "n_positions": 7, "min_seqlen": 3},
)


def test_the_example_of_the_docstring() -> None:
    task = CycleNavigation(9, 5, min_seqlen=1)
    answers = task.oracle(torch.tensor([[1, 1, 0, 2, 3, 0]]))[0].tolist()
    assert answers[:4] + answers[5:] == [UNKNOWN] * 5
    assert task.describe(answers[4]) == "p1"
    assert [task.describe(token) for token in (0, 1, 2, 3, 4, 9)] == [*"0+-=", "p0", "#9"]


@given(
    n=st.integers(3, 9), seqlen=st.integers(1, 60), varied=st.booleans(), seed=st.integers(0, 2**40)
)
def test_answers_are_where_a_walk_ends(n: int, seqlen: int, varied: bool, seed: int) -> None:
    task = CycleNavigation(n + 4, seqlen, n, int(varied))
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        end, place = inputs.index(3), 0
        for move in inputs[:end]:
            place = (place + {0: 0, 1: 1, 2: n - 1}[move]) % n
        assert targets[end] == 4 + place


def test_shortcuts_of_an_example() -> None:
    inputs = torch.tensor([[2, 2, 1, 1, 1, 0, 1, 1, 0, 2, 3]])
    task = CycleNavigation(9, 10)
    found = {n: task.describe(int(r(inputs)[0, -1])) for n, r in task.shortcuts.items()}
    assert found == {"last move": "p4", "last 8 moves": "p4"}
    assert task.describe(int(task.oracle(inputs)[0, -1])) == "p2"


def test_the_vocabulary_is_by_default_what_the_cycle_needs() -> None:
    assert make_task("cycle-navigation").vocab_size == 9
    assert make_task("cycle-navigation", n_positions="7").vocab_size == 11
    assert make_task("cycle-navigation", n_positions=7).chance == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 8}, "vocab_size is 8: .* on 5 positions needs at least 9"),
        (ConfigError, {"n_positions": 2}, "n_positions is 2: expected at least 3"),
        (SeqlenError, {"seqlen": 0}, "seqlen is 0: cycle-navigation needs at least 1"),
        (ConfigError, {"min_seqlen": 50}, r"min_seqlen is 50: .*; the nearest is 40"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        CycleNavigation(**{"vocab_size": 9, "seqlen": 40, **given})
