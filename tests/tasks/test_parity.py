from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.parity import Parity

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 3, "seqlen": 40},
    {"vocab_size": 3, "seqlen": 40, "min_seqlen": 3},
)


def test_the_example_of_the_docstring() -> None:
    task = Parity(3, 5, 1)
    answers = task.oracle(torch.tensor([[1, 0, 1, 1, 2, 0]]))[0].tolist()
    assert answers == [UNKNOWN] * 4 + [1, UNKNOWN]
    assert [task.describe(token) for token in range(4)] == ["0", "1", "=", "3"]


@given(seqlen=st.integers(1, 60), varied=st.booleans(), seed=st.integers(0, 2**40))
def test_answers_are_the_parity_of_ones(seqlen: int, varied: bool, seed: int) -> None:
    batch = Parity(3, seqlen, int(varied)).sample(8, torch.Generator().manual_seed(seed))
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        end = inputs.index(2)
        assert targets[end] == inputs[:end].count(1) % 2


def test_shortcuts_of_an_example() -> None:
    task = Parity(3, 11)
    inputs = torch.tensor([[1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 1, 2]])
    found = {name: int(rule(inputs)[0, -1]) for name, rule in task.shortcuts.items()}
    assert found == {"last bit": 1, "parity of the last 8 bits": 0, "more ones than zeros": 1}
    target = task.oracle(inputs)[0, -1]
    assert target == 0
    assert target != IGNORE


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 2}, "vocab_size is 2: parity needs at least 3"),
        (SeqlenError, {"seqlen": 0}, "seqlen is 0: parity needs at least 1"),
        (ConfigError, {"min_seqlen": 41}, r"min_seqlen is 41: .*; the nearest is 40"),
        (ConfigError, {"min_seqlen": -1}, r"min_seqlen is -1: .*; the nearest is 1"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Parity(**{"vocab_size": 3, "seqlen": 40, **given})
