from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import required_context
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.needle import Needle

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 64, "seqlen": 256},
    {"vocab_size": 40, "seqlen": 1000, "n_needles": 16, "n_queries": 8},
)


def sample(task: Needle, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert torch.equal(batch.targets, batch.dense_targets)
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    task = Needle(9, 11, 2, 2)
    inputs = torch.tensor([[5, 7, 2, 4, 4, 6, 5, 0, 6, 7, 4, 8, 0, 2]])
    assert task.oracle(inputs)[0].tolist() == [UNKNOWN] * 12 + [6, 4]
    assert task.shortcuts["value of the first needle"](inputs)[0, -1] == 4
    assert task.shortcuts["value of the last needle"](inputs)[0, -1] == 6
    assert task.shortcuts["last value"](inputs)[0, -1] == 4
    assert [task.describe(token) for token in (0, 3, 4, 7, 8)] == ["k1", "k4", "v1", "v4", "=>"]


@st.composite
def tasks(draw: st.DrawFn) -> Needle:
    n = draw(st.integers(1, 9))
    seqlen = 2 * n + draw(st.integers(0, 60))
    vocab_size = max(5, 2 * n + 1) + draw(st.integers(0, 40))
    return Needle(vocab_size, seqlen, n, draw(st.integers(1, n)))


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: Needle, seed: int) -> None:
    L, K = task.seqlen, task.n_keys
    for inputs, targets in sample(task, 8, seed):
        hay, queries = inputs[:L], inputs[L + 1 :]
        assert inputs[L] == task.vocab_size - 1
        assert all(0 <= token < task.vocab_size - 1 for token in [*hay, *queries])
        value_of = {key: hay[t + 1] for t, key in enumerate(hay) if key < K}
        assert sum(token < K for token in hay) == len(value_of) == task.n_needles
        assert all(value >= K for value in value_of.values())
        assert len({*queries}) == len(queries) == task.n_queries
        assert targets == [IGNORE] * (L + 1) + [value_of[key] for key in queries]


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 60))
def test_a_window_tells_if_it_holds_the_needle(task: Needle, seed: int, window: int) -> None:
    for inputs, targets in sample(task, 4, seed):
        for t in range(max(window, task.seqlen + 1), len(inputs)):
            seen = inputs[t + 1 - window : t + 1]
            hidden = inputs.index(inputs[t]) < t + 1 - window
            answer = task.oracle(torch.tensor([seen]))[0, -1]
            assert answer == (UNKNOWN if hidden else targets[t])


def test_places_keys_and_queries_are_uniform() -> None:
    task = Needle(9, 7, 2)
    places: dict[tuple[int, ...], int] = {}
    keys, first = torch.zeros(4), 0
    for inputs, _ in sample(task, 15_000):
        at = tuple(t for t, token in enumerate(inputs[:7]) if token < 4)
        places[at] = places.get(at, 0) + 1
        keys[inputs[-1]] += 1
        first += inputs[-1] == inputs[at[0]]
    assert len(places) == 10  # two of six places, not beside each other
    assert all(count / 15_000 == pytest.approx(0.1, abs=0.012) for count in places.values())
    assert first / 15_000 == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(keys / 15_000, torch.full((4,), 0.25), rtol=0, atol=0.015)


def test_half_of_the_haystack_is_right_half_of_the_time() -> None:
    task = Needle(64, 512)
    found = required_context(task, task.sample(2000, torch.Generator().manual_seed(0)))
    assert found[256] == pytest.approx(0.5, abs=0.05)
    assert found[514] == 1


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"n_needles": 0}, "n_needles is 0: expected at least 1"),
        (ConfigError, {"vocab_size": 8}, "vocab_size is 8: 4 needles need at least 9"),
        (ConfigError, {"vocab_size": 4, "n_needles": 1}, "vocab_size is 4: .* at least 5"),
        (ConfigError, {"n_queries": 5}, r"n_queries is 5: expected 1 to n_needles \(4\)"),
        (SeqlenError, {"seqlen": 7}, "seqlen is 7: 4 needles need at least 8"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Needle(**{"vocab_size": 64, "seqlen": 64, **given})
