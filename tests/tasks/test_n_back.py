from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.n_back import NBack

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 64, "seqlen": 768},
    {"vocab_size": 40, "seqlen": 256, "n": 1, "n_keys": 8},
)

EXAMPLE = [2, 5, 0, 7, 2, 4, 2, 6, 0, 4, 2, 7, 2]


def answers(inputs: list[int], n: int) -> list[int]:
    """Solve with a list of values for each key."""
    found, of = [IGNORE] * len(inputs), dict[int, list[int]]()
    for t in range(0, len(inputs), 2):
        values = of.setdefault(inputs[t], [])
        if len(values) >= n:
            found[t] = values[-n]
        values += inputs[t + 1 : t + 2]
    return found


def test_the_example_of_the_docstring() -> None:
    task = NBack(8, 14)
    found = task.oracle(torch.tensor([EXAMPLE]))[0].tolist()
    assert {t: x for t, x in enumerate(found) if x != UNKNOWN} == {6: 5, 10: 4, 12: 6}
    shortcuts = {
        name: rule(torch.tensor([EXAMPLE]))[0, 12] for name, rule in task.shortcuts.items()
    }
    assert shortcuts["latest value of the key"] == 7
    assert shortcuts["first value of the key"] == 5


@st.composite
def tasks(draw: st.DrawFn) -> NBack:
    n, K = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    seqlen = 2 * (K * (n - 1) + 2 + draw(st.integers(0, 40)))
    return NBack(K + draw(st.integers(2, 12)), seqlen, n, K)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: NBack, seed: int) -> None:
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    rows = (t.tolist() for t in (batch.inputs, batch.targets, batch.dense_targets))
    for inputs, targets, dense in zip(*rows, strict=True):
        assert len(inputs) == task.seqlen - 1
        assert all(0 <= key < task.n_keys for key in inputs[::2])
        assert all(task.n_keys <= value < task.vocab_size for value in inputs[1::2])
        assert dense == answers(inputs, task.n)
        begin = task.apart_by - 1
        assert targets == [IGNORE] * begin + dense[begin:]
        assert targets[-1] != IGNORE


@given(task=tasks(), seed=st.integers(0, 2**40), window=st.integers(1, 60))
def test_a_window_tells_if_it_holds_n_values_of_the_key(
    task: NBack, seed: int, window: int
) -> None:
    inputs = task.sample(4, torch.Generator().manual_seed(seed)).inputs
    window = min(window, task.seqlen - 1)
    seen = inputs[:, -window:]
    for row, found in zip(seen.tolist(), task.oracle(seen).tolist(), strict=True):
        expected = answers(row[(window - 1) % 2 :], task.n)[-1]
        assert found[-1] == (UNKNOWN if expected == IGNORE else expected)


def test_a_cut_pair_is_a_guess_only_for_the_value_that_is_missing() -> None:
    task = NBack(8, 14)
    seen = torch.tensor([EXAMPLE])[:, -6:]  # 6 0 4 2 7 2: its first value is that of a hidden key
    assert task.oracle(seen)[0, -1] == UNKNOWN
    assert task.window_guess(seen, torch.tensor([12])) == 6
    assert task.window_guess(seen[:, 1:], torch.tensor([12])) == UNKNOWN
    assert task.window_guess(seen[:, 4:], torch.tensor([12])) == UNKNOWN  # two are hidden


def test_keys_values_and_the_last_key_are_uniform() -> None:
    batch = NBack(8, 14, 2).sample(20_000, torch.Generator().manual_seed(0))
    for tokens, low in ((batch.inputs[:, :-1:2], 0), (batch.inputs[:, 1::2], 4)):
        share = (tokens - low).flatten().bincount(minlength=4) / tokens.numel()
        torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.01)
    rare = total = 0
    for row in batch.inputs.tolist():
        count = {key: row[:-1:2].count(key) for key in range(4)}
        if sorted(count.values()) == [0, 0, 2, 4]:
            total += 1
            rare += count[row[-1]] == 2
    assert total > 500
    assert rare / total == pytest.approx(0.5, abs=0.06)


def test_scoring_begins_where_the_pairs_make_forty_bits() -> None:
    assert make_task("n-back").apart_by == 8  # ten bits a pair
    assert NBack(8, 64).apart_by == 20
    assert NBack(8, 14).apart_by == 13  # all there is


def test_the_shortest_length_leaves_a_key_with_enough_values() -> None:
    batch = NBack(10, 2 * (5 * 2 + 2), 3).sample(500, torch.Generator().manual_seed(0))
    assert (batch.targets[:, -1] != IGNORE).all()


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: n-back needs at least 4"),
        (ConfigError, {"n": 0}, "n is 0: expected at least 1"),
        (ConfigError, {"n_keys": 1}, "n_keys is 1: expected 2 to 62"),
        (ConfigError, {"n_keys": 63}, "n_keys is 63: expected 2 to 62"),
        (SeqlenError, {"seqlen": 101}, "seqlen is 101: .* the nearest is 102"),
        (SeqlenError, {"seqlen": 66}, "32 keys needs an even number of at least 68"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        NBack(**{"vocab_size": 64, "seqlen": 768, **given})
