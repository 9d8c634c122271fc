from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.compression import Compression

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 16, "seqlen": 32},
    {"vocab_size": 128, "seqlen": 256},
)


def sample(task: Compression, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[3, 0, 6, 3, 7, 7, 7, 7]])
    assert Compression(8, 5).oracle(inputs)[0].tolist() == [UNKNOWN] * 4 + [3, 0, 6, 3]


@given(vocab_size=st.integers(3, 30), seqlen=st.integers(2, 60), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(
    vocab_size: int, seqlen: int, seed: int
) -> None:
    n = seqlen - 1
    for inputs, targets in sample(Compression(vocab_size, seqlen), 8, seed):
        assert all(0 <= token < vocab_size - 1 for token in inputs[:n])
        assert inputs[n:] == [vocab_size - 1] * n
        assert targets == [IGNORE] * n + inputs[:n]


def test_nothing_is_told_by_less_than_the_whole_distance() -> None:
    task = Compression(8, 33)
    inputs = task.sample(4, torch.Generator().manual_seed(0)).inputs
    assert (task.oracle(inputs[:, -32:])[:, -1] == UNKNOWN).all()
    assert torch.equal(task.oracle(inputs[:, -33:])[:, -1], inputs[:, 31])


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 2}, "vocab_size is 2: compression needs at least 3"),
        (SeqlenError, {"seqlen": 1}, "seqlen is 1: compression needs at least 2"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Compression(**{"vocab_size": 16, "seqlen": 32, **given})
