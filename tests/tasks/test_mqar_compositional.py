from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN
from mechbench.tasks.mqar_compositional import MqarCompositional

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 256, "seqlen": 64},
    {"vocab_size": 300, "seqlen": 256, "grid": 4, "random_filler": True},
)

EXAMPLE = [1, 5, 12, 3, 8, 9, 1, 8, 11, 3, 5, 10, 1, 8, 0, 3, 5, 0, 3, 8, 0, 1, 5, 0]
ASKED = [13, 16, 19, 22]


def sample(task: MqarCompositional, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert torch.equal(batch.targets, batch.dense_targets)
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    task, inputs = MqarCompositional(13, 24), torch.tensor([EXAMPLE])
    assert task.oracle(inputs)[0, ASKED].tolist() == [11, 10, 9, 12]
    wanted = {
        "latest value of the first key": [11, 10, 10, 11],
        "latest value of the second key": [11, 10, 11, 10],
        "values in order": [12, 9, 11, 10],
    }
    for name, answers in wanted.items():
        assert task.shortcuts[name](inputs)[0, ASKED].tolist() == answers
    assert [task.describe(token) for token in (0, 1, 4, 5, 8, 9, 12)] == [
        ".", "a1", "a4", "b1", "b4", "v1", "v4"
    ]  # fmt: skip


@st.composite
def tasks(draw: st.DrawFn) -> MqarCompositional:
    grid = draw(st.integers(2, 4))
    seqlen = 6 * grid**2 - 1 + draw(st.integers(0, 40))
    vocab_size = 3 * grid**2 - 1 + draw(st.integers(0, 60))
    power, filler = draw(st.sampled_from([0.01, 1.0])), draw(st.booleans())
    return MqarCompositional(vocab_size, seqlen, grid, power, filler)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(
    task: MqarCompositional, seed: int
) -> None:
    n, V = task.grid**2, task.vocab_size
    kinds = [task.describe(token)[0] for token in range(V)]
    assert max(map(kinds.count, "abv")) - min(map(kinds.count, "abv")) <= 1
    for inputs, targets in sample(task, 6, seed):
        firsts, seconds, values = (inputs[j : 3 * n : 3] for j in range(3))
        assert {*zip(firsts, seconds, strict=True)} == {*product({*firsts}, {*seconds})}
        assert len({*firsts}) == len({*seconds}) == task.grid
        assert len({*values}) == n
        for tokens, kind in ((firsts, "a"), (seconds, "b"), (values, "v")):
            assert all(kinds[token] == kind for token in tokens)
        value_of = dict(zip(zip(firsts, seconds, strict=True), values, strict=True))
        expected = [IGNORE] * task.seqlen
        asked = set()
        for t in range(3 * n, task.seqlen):
            if kinds[inputs[t]] == "b":
                pair = (inputs[t - 1], inputs[t])
                expected[t] = value_of[pair]
                asked.add(pair)
                assert t % 3 == 1
            elif kinds[inputs[t]] == "a":
                assert kinds[inputs[t + 1]] == "b"
            else:
                assert task.random_filler or inputs[t] == 0
        assert targets == expected
        assert asked == {*value_of}
        assert sum(target != IGNORE for target in targets) == n


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 90))
def test_a_window_tells_if_it_holds_both_keys(
    task: MqarCompositional, seed: int, window: int
) -> None:
    for inputs, targets in sample(task, 2, seed):
        for t in (t for t in range(window, task.seqlen) if targets[t] != IGNORE):
            shown = inputs[t + 1 - window : t + 1]
            seen = any(shown[i : i + 2] == inputs[t - 1 : t + 1] for i in range(window - 3))
            answer = task.oracle(torch.tensor([shown]))[0, -1]
            assert answer == (targets[t] if seen and window > 3 else UNKNOWN)


def test_the_order_of_the_grid_is_uniform() -> None:
    counts: dict[tuple[int, int], int] = {}
    for inputs, _ in sample(MqarCompositional(11, 23), 6000):
        key = (sorted({*inputs[0:12:3]}).index(inputs[0]), inputs[0] == inputs[3])
        counts[key] = counts.get(key, 0) + 1
    share = {key: count / 6000 for key, count in counts.items()}
    # The second pair has the first one's first key in one case of three.
    for first in (0, 1):
        assert share[first, True] == pytest.approx(1 / 6, abs=0.02)
        assert share[first, False] == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("grid", [2, 3])
def test_one_key_alone_is_right_once_in_grid(grid: int) -> None:
    task = MqarCompositional(64, 120, grid)
    batch = task.sample(300, torch.Generator().manual_seed(0))
    scored = batch.targets != IGNORE
    for which in ("first", "second"):
        guess = task.shortcuts[f"latest value of the {which} key"](batch.inputs)
        assert (guess == batch.targets)[scored].float().mean() == pytest.approx(1 / grid)


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"grid": 1}, "grid is 1: expected at least 2"),
        (ConfigError, {"power": 1.5}, "power is 1.5: expected above 0 and at most 1"),
        (ConfigError, {"vocab_size": 10}, "vocab_size is 10: .* at least 11"),
        (ConfigError, {"vocab_size": 25, "grid": 3}, "vocab_size is 25: .* at least 26"),
        (SeqlenError, {"seqlen": 22}, "seqlen is 22: .* at least 23"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        MqarCompositional(**{"vocab_size": 64, "seqlen": 64, **given})
