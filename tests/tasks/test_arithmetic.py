from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.arithmetic import Arithmetic
from mechbench.tasks.base import IGNORE, UNKNOWN

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 11, "seqlen": 9},
    {"vocab_size": 3, "seqlen": 65},
)


def sample(task: Arithmetic, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[1, 3, 5, 10, 6, 8, 3, 0, 8, 1]])
    answers = Arithmetic(11, 7).oracle(inputs)[0].tolist()
    assert answers == [UNKNOWN] * 6 + [0, 8, 1, 8]


@given(base=st.integers(2, 16), n_digits=st.integers(1, 20), seed=st.integers(0, 2**40))
def test_results_are_those_of_whole_numbers(base: int, n_digits: int, seed: int) -> None:
    def number(digits: list[int]) -> int:
        return sum(digit * base**i for i, digit in enumerate(reversed(digits)))

    D, L = n_digits, 2 * n_digits + 1
    for inputs, targets in sample(Arithmetic(base + 1, L), 8, seed):
        assert len(inputs) == L + D
        assert inputs[D] == base
        assert all(0 <= digit < base for digit in [*inputs[:D], *inputs[D + 1 :]])
        result = targets[L - 1 :]
        assert number(result) == number(inputs[:D]) + number(inputs[D + 1 : L])
        assert inputs[L:] == result[:-1]
        assert targets[: L - 1] == [IGNORE] * (L - 1)


def test_a_window_tells_the_places_whose_digits_it_sees() -> None:
    task = Arithmetic(11, 7)
    inputs = torch.tensor([[1, 3, 5, 10, 6, 8, 3, 0, 8, 1]])
    assert task.oracle(inputs[:, 1:])[0, 5:].tolist() == [UNKNOWN, UNKNOWN, 1, 8]
    assert task.oracle(inputs[:, 3:])[0, 3:].tolist() == [UNKNOWN] * 4
    assert task.oracle(inputs[:, 4:])[0].tolist() == [UNKNOWN] * 6


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 2}, "vocab_size is 2: arithmetic needs at least 3"),
        (SeqlenError, {"seqlen": 8}, "seqlen is 8: .* the nearest is 9"),
        (SeqlenError, {"seqlen": 1}, "at least 3 .* the nearest is 3"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Arithmetic(**{"vocab_size": 11, "seqlen": 9, **given})
