from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.mqar_overwrite import MqarOverwrite

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 256, "seqlen": 64},
    {"vocab_size": 8192, "seqlen": 256, "n_pairs": 32, "n_updates": 20, "random_filler": True},
)

EXAMPLE = [2, 8, 4, 11, 7, 9, 4, 14, 0, 0, 4, 0, 2, 0, 0, 0, 7, 0]


def sample(task: MqarOverwrite, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert torch.equal(batch.targets, batch.dense_targets)
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    task = MqarOverwrite(16, 18, 3, 1)
    inputs = torch.tensor([EXAMPLE])
    assert task.oracle(inputs)[0, [10, 12, 16]].tolist() == [14, 8, 9]
    old = task.shortcuts["first value of the key"](inputs)[0, [10, 12, 16]]
    assert old.tolist() == [11, 8, 9]
    assert task.shortcuts["values in order"](inputs)[0, [10, 12, 16]].tolist() == [8, 11, 9]


@st.composite
def tasks(draw: st.DrawFn) -> MqarOverwrite:
    n = draw(st.integers(1, 9))
    u = draw(st.integers(0, n))
    seqlen = 4 * n + 2 * u + 2 * draw(st.integers(0, 30))
    vocab_size = max(2 * n + 2, 2 * (n + u) - 1) + draw(st.integers(0, 60))
    return MqarOverwrite(
        vocab_size, seqlen, n, u, draw(st.sampled_from([0.01, 1.0])), draw(st.booleans())
    )


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: MqarOverwrite, seed: int) -> None:
    n, first, end = task.n_pairs, task.vocab_size // 2, 2 * (task.n_pairs + task.n_updates)
    for inputs, targets in sample(task, 6, seed):
        keys, values = inputs[0:end:2], inputs[1:end:2]
        assert all(1 <= key < first for key in keys)
        assert all(first <= value < task.vocab_size for value in values)
        assert len({*keys[:n]}) == n
        assert len({*values}) == len(values)
        assert len({*keys[n:]}) == task.n_updates
        assert {*keys[n:]} <= {*keys}
        value_of = dict(zip(keys, values, strict=True))  # later ones replace earlier ones
        queries = [t for t in range(end, task.seqlen) if 1 <= inputs[t] < first]
        assert sorted(inputs[t] for t in queries) == sorted(keys[:n])
        assert all(t % 2 == 0 for t in queries)
        asked = [value_of[x] if t in queries else IGNORE for t, x in enumerate(inputs)]
        assert targets == asked
        filler = {inputs[t] for t in range(end, task.seqlen) if t not in queries}
        assert task.random_filler or filler <= {0}


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 60))
def test_a_window_tells_if_it_holds_the_latest_value(
    task: MqarOverwrite, seed: int, window: int
) -> None:
    for inputs, targets in sample(task, 3, seed):
        for t in (t for t in range(window, task.seqlen) if targets[t] != IGNORE):
            shown = inputs[t + 1 - window : t + 1]
            seen = inputs[t] in shown[:-1]
            answer = task.oracle(torch.tensor([shown]))[0, -1]
            assert answer == (targets[t] if seen else UNKNOWN)


def test_which_keys_are_updated_is_uniform() -> None:
    counts = torch.zeros(4)
    for inputs, _ in sample(MqarOverwrite(40, 64, 4, 2), 8000):
        counts[inputs[0:8:2].index(inputs[8])] += 1  # the first update
    torch.testing.assert_close(counts / 8000, torch.full((4,), 0.25), rtol=0, atol=0.02)


def test_the_old_value_is_right_for_keys_that_are_not_updated() -> None:
    task = MqarOverwrite(256, 64, 8, 4)
    batch = task.sample(500, torch.Generator().manual_seed(0))
    guess = task.shortcuts["first value of the key"](batch.inputs)
    scored = batch.targets != IGNORE
    assert (guess == batch.targets)[scored].float().mean() == 0.5


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"n_pairs": 0}, "n_pairs is 0: expected at least 1"),
        (ConfigError, {"n_updates": 5}, r"n_updates is 5: expected 0 to n_pairs \(4\)"),
        (ConfigError, {"n_updates": -1}, "n_updates is -1"),
        (ConfigError, {"power": 0.0}, "power is 0.0: expected above 0"),
        (ConfigError, {"vocab_size": 10}, "vocab_size is 10: .* at least 11"),
        (SeqlenError, {"seqlen": 33}, "seqlen is 33: .* the nearest is 34"),
        (SeqlenError, {"seqlen": 18}, "at least 20; the nearest is 20"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        MqarOverwrite(**{"vocab_size": 64, "seqlen": 64, **given})
