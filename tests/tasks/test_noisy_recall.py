from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE
from mechbench.tasks.noisy_recall import NoisyRecall

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 32, "seqlen": 128},
    {"vocab_size": 80, "seqlen": 256, "noise_share": 0.6},
)


def sample(task: NoisyRecall, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[1, 4, 8, 6, 0, 5, 1, 4, 7, 7, 0]])
    answers = NoisyRecall(10, 12, 4).oracle(inputs)[0].tolist()
    assert (answers[6], answers[10]) == (4, 5)


@st.composite
def tasks(draw: st.DrawFn) -> NoisyRecall:
    n_noise = draw(st.integers(0, 9))
    share = draw(st.sampled_from([0.0, 0.2, 0.9])) if n_noise else 0.0
    vocab_size = n_noise + draw(st.integers(2, 20))
    return NoisyRecall(vocab_size, 2 * draw(st.integers(2, 40)), n_noise, share)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: NoisyRecall, seed: int) -> None:
    K, first_noise = task.n_keys, task.vocab_size - task.n_noise
    for inputs, targets in sample(task, 8, seed):
        assert len(inputs) == task.seqlen - 1
        value_of: dict[int, int] = {}
        expected = [IGNORE] * len(inputs)
        for t in range(0, len(inputs) - 1, 2):
            key, value = inputs[t], inputs[t + 1]
            if key >= first_noise:
                assert first_noise <= value < task.vocab_size
                continue
            assert key < K <= value < first_noise
            if key in value_of:
                assert value == value_of[key]
                expected[t] = value
            value_of[key] = value
        expected[-1] = value_of[inputs[-1]]
        assert targets == expected


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8])
def test_noise_share_is_that_of_all_slots_but_one(share: float) -> None:
    inputs = NoisyRecall(32, 128, 16, share).sample(2000, torch.Generator().manual_seed(0)).inputs
    found = (inputs[:, :-1:2] >= 16).double().mean()
    assert abs(found - share * 62 / 63) < 0.01


def test_query_is_uniform_over_the_distinct_keys() -> None:
    rare = total = 0
    for inputs, _ in sample(NoisyRecall(6, 8, 0, 0.0), 20_000):
        keys = inputs[0:6:2]
        if len(set(keys)) == 2:
            total += 1
            rare += keys.count(inputs[-1]) == 1
    assert total > 10_000
    assert abs(rare / total - 0.5) < 0.02


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 17}, "vocab_size is 17: .* at least 18"),
        (ConfigError, {"n_noise": -1}, "n_noise is -1: expected 0 or more"),
        (ConfigError, {"n_noise": 0}, "noise_share is 0.2: .* 0 without noise tokens"),
        (ConfigError, {"noise_share": 1.0}, "noise_share is 1.0: expected 0 or more and below 1"),
        (SeqlenError, {"seqlen": 65}, "seqlen is 65: .* the nearest is 66"),
        (SeqlenError, {"seqlen": 2}, "the nearest is 4"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        NoisyRecall(**{"vocab_size": 32, "seqlen": 128, **given})
