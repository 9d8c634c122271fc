from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import UNKNOWN
from mechbench.tasks.even_pairs import EvenPairs

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 3, "seqlen": 40},
    {"vocab_size": 3, "seqlen": 40, "min_seqlen": 3},
)


def test_the_example_of_the_docstring() -> None:
    task = EvenPairs(3, 5, 2)
    answers = task.oracle(torch.tensor([[1, 0, 0, 1, 2, 0]]))[0].tolist()
    assert answers == [UNKNOWN] * 4 + [1, UNKNOWN]
    assert [task.describe(token) for token in range(4)] == ["0", "1", "=", "3"]


@given(seqlen=st.integers(2, 60), varied=st.booleans(), seed=st.integers(0, 2**40))
def test_answers_say_whether_unequal_pairs_are_even(seqlen: int, varied: bool, seed: int) -> None:
    task = EvenPairs(3, seqlen, 2 * varied)
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        end = inputs.index(2)
        unequal = sum(a != b for a, b in pairwise(inputs[:end]))
        assert targets[end] == (unequal % 2 == 0)


def test_shortcuts_of_an_example() -> None:
    inputs = torch.tensor([[1, 0, 1, 0, 0, 2]])
    found = {name: int(rule(inputs)[0, -1]) for name, rule in EvenPairs(3, 5).shortcuts.items()}
    assert found == {"last bit": 0, "last two bits are the same": 1}


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 2}, "vocab_size is 2: even-pairs needs at least 3"),
        (SeqlenError, {"seqlen": 1}, "seqlen is 1: even-pairs needs at least 2"),
        (ConfigError, {"min_seqlen": 1}, r"min_seqlen is 1: .*; the nearest is 2"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        EvenPairs(**{"vocab_size": 3, "seqlen": 40, **given})
