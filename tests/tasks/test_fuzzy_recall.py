from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.fuzzy_recall import FuzzyRecall

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 16, "seqlen": 128},
    {"vocab_size": 128, "seqlen": 256, "key_len": 2, "value_len": 4},
)


def sample(task: FuzzyRecall, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


EXAMPLE = [15] * 5 + [3, 0, 5, 9, 12, 1, 2, 6, 8, 3, 0, 5, 9]


def test_the_example_of_the_docstring() -> None:
    answers = FuzzyRecall(16, 18).oracle(torch.tensor([EXAMPLE]))[0].tolist()
    assert answers == [UNKNOWN] * 16 + [9, 12]


@st.composite
def tasks(draw: st.DrawFn) -> FuzzyRecall:
    k, v = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    vocab_size = max(2 * k, 2 * v - 1) + 1 + draw(st.integers(0, 20))
    return FuzzyRecall(vocab_size, 2 * (k + v) - 1 + draw(st.integers(0, 80)), k, v)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: FuzzyRecall, seed: int) -> None:
    k, K, pad = task.key_len, task.n_keys, task.vocab_size - 1
    for inputs, targets in sample(task, 6, seed):
        whole = [*inputs, targets[-1]]  # the last target is the token that is left out
        t = next(i for i, token in enumerate(whole) if token != pad)
        assert t <= 2 * (k + task.value_len)
        expected = [IGNORE] * (task.seqlen + 1)
        value_of: dict[tuple[int, ...], list[int]] = {}
        while t < len(whole):
            key = tuple(whole[t : t + k])
            assert len(set(key)) == k
            assert max(key) < K
            t += k
            value = []
            while t < len(whole) and whole[t] >= K:
                value.append(whole[t])
                t += 1
            assert 1 <= len(value) <= task.value_len
            assert len(set(value)) == len(value)
            assert max(value) < pad
            last_is_new = key not in value_of
            if key in value_of:
                assert value == value_of[key]
                expected[t - len(value) - 1 : t - 1] = value
            value_of[key] = value
        assert not last_is_new
        assert targets == expected[:-1]


def test_a_window_needs_the_whole_key() -> None:
    task = FuzzyRecall(16, 18)
    for cut, told in ((5, [9, 12]), (6, [UNKNOWN] * 2), (9, [UNKNOWN] * 2)):
        assert task.oracle(torch.tensor([EXAMPLE[cut:]]))[0, -2:].tolist() == told
    assert task.oracle(torch.tensor([EXAMPLE[-2:]])).tolist() == [[UNKNOWN] * 2]


def test_keys_and_value_sizes_are_uniform() -> None:
    first, sizes = torch.zeros(7), torch.zeros(3)
    for inputs, _ in sample(FuzzyRecall(16, 128), 2000):
        t = next(i for i, token in enumerate(inputs) if token != 15)
        first[inputs[t]] += 1
        sizes[sum(token >= 7 for token in inputs[t + 3 : t + 7]) - 1] += 1
    torch.testing.assert_close(first / 2000, torch.full((7,), 1 / 7), rtol=0, atol=0.03)
    torch.testing.assert_close(sizes / 2000, torch.full((3,), 1 / 3), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 6}, "vocab_size is 6: .* at least 7"),
        (ConfigError, {"value_len": 6, "vocab_size": 10}, "at least 12"),
        (ConfigError, {"key_len": 0}, "key_len is 0: expected 1 to 6"),
        (ConfigError, {"value_len": 7}, "value_len is 7: expected 1 to 6"),
        (SeqlenError, {"seqlen": 10}, "seqlen is 10: .* at least 11"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        FuzzyRecall(**{"vocab_size": 16, "seqlen": 128, **given})
