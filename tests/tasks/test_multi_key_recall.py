from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.multi_key_recall import MultiKeyRecall

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 10, "seqlen": 96},
    {"vocab_size": 30, "seqlen": 256, "key_len": 3},
)

EXAMPLE = [2, 3, 5, 1, 2, 4, 2, 3, 5, 3, 3, 6, 7, 1, 2]


def test_the_example_of_the_docstring() -> None:
    task = MultiKeyRecall(8, 12)
    answers = task.oracle(torch.tensor([EXAMPLE]))[0].tolist()
    assert {t: answer for t, answer in enumerate(answers) if answer != UNKNOWN} == {7: 5, 14: 4}
    guess = task.shortcuts["value of the last key token"](torch.tensor([EXAMPLE]))
    assert guess[0, -1] == 4


@given(
    vocab_size=st.integers(4, 20),
    pairs=st.integers(1, 30),
    k=st.integers(1, 4),
    seed=st.integers(0, 2**40),
)
def test_every_example_has_the_structure_of_the_docstring(
    vocab_size: int, pairs: int, k: int, seed: int
) -> None:
    L = pairs * (k + 1)
    task = MultiKeyRecall(vocab_size, L, k)
    batch = task.sample(6, torch.Generator().manual_seed(seed))
    rows = (t.tolist() for t in (batch.inputs, batch.targets, batch.dense_targets))
    for inputs, targets, dense in zip(*rows, strict=True):
        assert len(inputs) == L + 1 + k
        value_of: dict[tuple[int, ...], int] = {}
        expected = [IGNORE] * len(inputs)
        for t in range(0, L, k + 1):
            key, value = tuple(inputs[t : t + k]), inputs[t + k]
            assert all(1 <= token <= task.n_keys for token in key)
            assert task.n_keys < value <= vocab_size - 2
            if key in value_of:
                assert value_of[key] == value
                expected[t + k - 1] = value
            value_of[key] = value
        assert inputs[L] == vocab_size - 1
        answer = value_of[tuple(inputs[L + 1 :])]
        assert targets == [IGNORE] * (L + k) + [answer]
        assert dense == [*expected[:-1], answer]


def test_query_is_uniform_over_the_distinct_tuples() -> None:
    rare = total = 0
    batch = MultiKeyRecall(6, 9).sample(40_000, torch.Generator().manual_seed(0))
    for inputs in batch.inputs.tolist():
        keys = [tuple(inputs[t : t + 2]) for t in (0, 3, 6)]
        if len(set(keys)) == 2:
            total += 1
            rare += keys.count(tuple(inputs[-2:])) == 1
    assert total > 10_000
    assert abs(rare / total - 0.5) < 0.02


def test_a_window_that_cuts_the_key_tells_nothing() -> None:
    task = MultiKeyRecall(8, 12)
    for width, told in ((12, 4), (11, UNKNOWN), (2, UNKNOWN), (1, UNKNOWN)):
        assert task.oracle(torch.tensor([EXAMPLE[-width:]]))[0, -1] == told


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: multi-key-recall needs at least 4"),
        (ConfigError, {"key_len": 0}, "key_len is 0: expected 1 to 4"),
        (ConfigError, {"key_len": 5}, "key_len is 5: expected 1 to 4"),
        (SeqlenError, {"seqlen": 98}, "seqlen is 98: .* multiple of 3; the nearest is 99"),
        (SeqlenError, {"seqlen": 1}, "the nearest is 3"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        MultiKeyRecall(**{"vocab_size": 10, "seqlen": 96, **given})
