from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.mqar import Mqar

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 256, "seqlen": 64},
    {"vocab_size": 8192, "seqlen": 512, "n_pairs": 64, "random_filler": True},
)


def sample(task: Mqar, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[2, 8, 4, 7, 0, 0, 4, 0, 0, 0, 0, 0, 2, 0, 0, 0]])
    answers = Mqar(12, 16, 2).oracle(inputs)[0].tolist()
    assert (answers[6], answers[12]) == (7, 8)


@st.composite
def tasks(draw: st.DrawFn) -> Mqar:
    n = draw(st.integers(1, 9))
    seqlen = 4 * n + 2 * draw(st.integers(0, 30))
    vocab_size = 2 * n + 2 + draw(st.integers(0, 100))
    return Mqar(vocab_size, seqlen, n, draw(st.sampled_from([0.01, 1.0])), draw(st.booleans()))


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: Mqar, seed: int) -> None:
    n, first = task.n_pairs, task.vocab_size // 2
    for inputs, targets in sample(task, 6, seed):
        keys, values = inputs[0 : 2 * n : 2], inputs[1 : 2 * n : 2]
        value_of = dict(zip(keys, values, strict=True))
        assert len(value_of) == n == len(set(values))
        assert all(1 <= key < first for key in keys)
        assert all(first <= value < task.vocab_size for value in values)
        queries = [t for t in range(2 * n, task.seqlen) if 1 <= inputs[t] < first]
        assert sorted(inputs[t] for t in queries) == sorted(keys)
        assert all(t % 2 == 0 for t in queries)
        expected = [value_of[x] if t in queries else IGNORE for t, x in enumerate(inputs)]
        assert targets == expected
        filler = {inputs[t] for t in range(2 * n, task.seqlen) if t not in queries}
        assert task.random_filler or filler <= {0}


@given(task=tasks(), seed=st.integers(0, 2**40), cut=st.floats(0, 1), any_token=st.booleans())
def test_the_oracle_reads_the_first_of_a_key_in_any_window(
    task: Mqar, seed: int, cut: float, any_token: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = task.sample(4, generator).inputs[:, int(cut * (task.seqlen - 1)) :]
    if any_token:
        inputs = torch.randint(task.vocab_size, inputs.shape, generator=generator)
    for row, answers in zip(inputs.tolist(), task.oracle(inputs).tolist(), strict=True):
        first: dict[int, int] = {}
        for t, token in enumerate(row):
            if not 1 <= token < task.vocab_size // 2 or first.setdefault(token, t) == t:
                assert answers[t] == UNKNOWN
            else:
                assert answers[t] == row[first[token] + 1]


def test_gaps_follow_the_power_law() -> None:
    for power in (0.01, 1.0):
        task = Mqar(40, 64, 1, power)
        targets = task.sample(20_000, torch.Generator().manual_seed(0)).targets
        counts = (targets != IGNORE).sum(0)[2::2].double()
        weight = torch.arange(1, 32).double() ** (power - 1)
        torch.testing.assert_close(counts / 20_000, weight / weight.sum(), rtol=0, atol=0.012)


def test_filler_is_random_over_everything_but_keys() -> None:
    task = Mqar(12, 64, 2, random_filler=True)
    inputs = task.sample(400, torch.Generator().manual_seed(0)).inputs
    assert set(inputs[:, 5::2].flatten().tolist()) == {0, 6, 7, 8, 9, 10, 11}


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"n_pairs": 0}, "n_pairs is 0: expected at least 1"),
        (ConfigError, {"power": 0.0}, "power is 0.0: expected above 0"),
        (ConfigError, {"power": 1.5}, "at most 1"),
        (ConfigError, {"vocab_size": 9}, "vocab_size is 9: .* at least 10"),
        (SeqlenError, {"seqlen": 33}, "seqlen is 33: .* the nearest is 34"),
        (SeqlenError, {"seqlen": 14}, "at least 16; the nearest is 16"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Mqar(**{"vocab_size": 64, "seqlen": 64, **given})
