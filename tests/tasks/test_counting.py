from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.counting import Counting

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 20, "seqlen": 64},
    {"vocab_size": 40, "seqlen": 1024},
)


def sample(task: Counting, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    task = Counting(8, 7)
    answer = int(task.oracle(torch.tensor([[0, 1, 1, 1, 0, 2, 1]]))[0, -1])
    assert task.describe(answer) == "#4"


@given(vocab_size=st.integers(4, 40), more=st.integers(0, 60), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(
    vocab_size: int, more: int, seed: int
) -> None:
    task = Counting(vocab_size, vocab_size // 2 + more)
    symbols = vocab_size - vocab_size // 2
    for inputs, targets in sample(task, 8, seed):
        assert all(0 <= token < symbols for token in inputs)
        count = inputs.count(inputs[-1])
        assert 1 <= count <= task.n_counts
        assert targets == [IGNORE] * (task.seqlen - 1) + [symbols + count - 1]


def test_counts_and_places_are_uniform() -> None:
    counts, places = torch.zeros(5), torch.zeros(19)
    for inputs, _ in sample(Counting(10, 20), 20_000):
        counts[inputs.count(inputs[-1]) - 1] += 1
        places += torch.tensor([token == inputs[-1] for token in inputs[:-1]])
    torch.testing.assert_close(counts / 20_000, torch.full((5,), 0.2), rtol=0, atol=0.015)
    torch.testing.assert_close(places / 20_000, torch.full((19,), 2 / 19), rtol=0, atol=0.01)


def test_a_window_tells_the_largest_count_only() -> None:
    task = Counting(6, 9)  # symbols 0 1 2, counts to 3
    assert task.oracle(torch.tensor([[1, 0, 1, 2, 1]]))[0, -1] == 5
    assert task.oracle(torch.tensor([[0, 0, 1, 2, 1]]))[0, -1] == UNKNOWN


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: counting needs at least 4"),
        (SeqlenError, {"seqlen": 9}, "seqlen is 9: counting to 10 .* at least 10"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Counting(**{"vocab_size": 20, "seqlen": 64, **given})
