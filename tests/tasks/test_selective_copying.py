from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.selective_copying import SelectiveCopying

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 16, "seqlen": 256},
    {"vocab_size": 64, "seqlen": 512, "n_copied": 96},
)


def sample(task: SelectiveCopying, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[6, 2, 6, 6, 6, 5, 6, 0, 7, 6, 6, 6]])
    answers = SelectiveCopying(8, 12, 3).oracle(inputs)[0].tolist()
    assert answers == [UNKNOWN] * 9 + [2, 5, 0]


@given(
    vocab_size=st.integers(4, 30),
    n=st.integers(1, 12),
    more=st.integers(0, 40),
    seed=st.integers(0, 2**40),
)
def test_every_example_has_the_structure_of_the_docstring(
    vocab_size: int, n: int, more: int, seed: int
) -> None:
    task = SelectiveCopying(vocab_size, 2 * n + 2 + more, n)
    blank, copy = vocab_size - 2, vocab_size - 1
    for inputs, targets in sample(task, 8, seed):
        data = [token for token in inputs if token < blank]
        assert len(data) == n
        assert inputs[-n - 1 :] == [copy] + [blank] * n
        assert inputs.count(copy) == 1
        assert inputs[-n - 2] < blank  # the last data token stands before `=>`
        assert targets == [IGNORE] * (task.seqlen - n) + data


def test_blanks_are_spread_evenly() -> None:
    task = SelectiveCopying(4, 40, 3)
    at = torch.zeros(3)
    for inputs, _ in sample(task, 5000):
        at += torch.tensor([t for t, token in enumerate(inputs) if token < 2])
    # 33 blanks, 11 expected before each data token
    torch.testing.assert_close(at / 5000, torch.tensor([11.0, 23.0, 35.0]), rtol=0, atol=0.3)


def test_a_window_tells_what_was_copied_last() -> None:
    task = SelectiveCopying(8, 12, 3)
    seen = torch.tensor([[5, 6, 0, 7, 6, 6, 6]])
    assert task.oracle(seen)[0].tolist() == [UNKNOWN] * 5 + [5, 0]


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: selective-copying needs at least 4"),
        (ConfigError, {"n_copied": 0}, "n_copied is 0: expected at least 1"),
        (SeqlenError, {"seqlen": 33}, "seqlen is 33: copying 16 .* at least 34"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        SelectiveCopying(**{"vocab_size": 16, "seqlen": 256, **given})
