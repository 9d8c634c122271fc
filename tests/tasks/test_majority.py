from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import shortcut_accuracies
from mechbench.errors import ConfigError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.majority import Majority

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 20, "seqlen": 64},
    {"vocab_size": 40, "seqlen": 1024, "lead": 0.0},
)


def sample(task: Majority, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[0, 6, 6, 6, 4, 5, 6], [3, 3, 1, 2, 2, 1, 0]])
    assert Majority(8, 7).oracle(inputs)[:, -1].tolist() == [6, 1]  # of three twos the last


@given(
    vocab_size=st.integers(2, 12),
    seqlen=st.integers(1, 40),
    lead=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 2**40),
)
def test_the_answer_is_the_most_frequent_token_and_of_several_the_last(
    vocab_size: int, seqlen: int, lead: float, seed: int
) -> None:
    for inputs, targets in sample(Majority(vocab_size, seqlen, lead), 8, seed):
        most = max(inputs.count(token) for token in inputs)
        answer = next(token for token in reversed(inputs) if inputs.count(token) == most)
        assert targets == [IGNORE] * (seqlen - 1) + [answer]


def test_a_window_tells_once_its_winner_cannot_be_caught() -> None:
    task = Majority(4, 8)
    assert task.oracle(torch.tensor([[1, 2, 2, 2, 2]]))[0, -1] == UNKNOWN  # 4 against 1 + 3
    assert task.oracle(torch.tensor([[1, 2, 2, 2, 2, 2]]))[0, -1] == 2


def test_a_quarter_of_the_sequence_is_not_enough_at_any_length() -> None:
    for seqlen in (64, 4096):
        task = Majority(20, seqlen)
        batch = task.sample(1000, torch.Generator().manual_seed(0))
        assert shortcut_accuracies(task, batch)["last quarter's majority"] < 0.6


def test_lead_favours_one_token_of_each_example() -> None:
    inputs = Majority(20, 4096, 8.0).sample(50, torch.Generator().manual_seed(0)).inputs
    most = torch.stack([torch.bincount(row, minlength=20).max() for row in inputs]).double()
    share = 8 * (2 / (4096 * 20)) ** 0.5
    assert abs(most.mean() / 4096 - (share + (1 - share) / 20)) < 0.002


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 1}, "vocab_size is 1: majority needs at least 2"),
        (ConfigError, {"lead": -1.0}, "lead is -1.0: expected 0 or more"),
        (ConfigError, {"lead": float("inf")}, "lead is inf"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Majority(**{"vocab_size": 20, "seqlen": 64, **given})
