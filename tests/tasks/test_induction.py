from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import required_context
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.induction import Induction

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 20, "seqlen": 64},
    {"vocab_size": 30, "seqlen": 256, "induction_len": 3, "n_triggers": 4},
)


def sample(task: Induction, n: int, seed: int = 0) -> tuple[list[list[int]], ...]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return tuple(t.tolist() for t in (batch.inputs, batch.targets, batch.dense_targets))


@st.composite
def tasks(draw: st.DrawFn) -> Induction:
    k = draw(st.integers(1, 6))
    seqlen = draw(st.integers(k + 2, 60))
    return Induction(draw(st.integers(4, 40)), seqlen, k, draw(st.integers(1, 5)))


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: Induction, seed: int) -> None:
    V, L, k = task.vocab_size, task.seqlen, task.induction_len
    answers = task.oracle(task.sample(8, torch.Generator().manual_seed(seed)).inputs).tolist()
    rows = zip(*sample(task, 8, seed), answers, strict=True)
    for inputs, targets, dense, answer in rows:
        assert len(inputs) == L + k
        special = [t for t, token in enumerate(inputs) if token == V - 1]
        assert all(1 <= token <= V - 2 for t, token in enumerate(inputs) if t not in special)
        *triggers, final = special
        assert final == L
        assert 1 <= len(triggers) <= task.n_triggers
        assert all(b - a > k for a, b in pairwise(triggers))
        assert triggers[-1] + k < L - 1
        copied = inputs[triggers[0] + 1 : triggers[0] + 1 + k]
        expected = [IGNORE] * (L + k)
        for start in [*triggers[1:], L]:
            assert inputs[start + 1 : start + 1 + k] == copied[: len(inputs) - start - 1]
            expected[start : start + k] = copied
        assert dense == expected
        assert targets == [IGNORE] * L + copied
        assert answer == [UNKNOWN if token == IGNORE else token for token in expected]


def test_numbers_and_positions_are_uniform() -> None:
    task = Induction(12, 20, 2)
    numbers, starts = torch.zeros(12), torch.zeros(20)
    for inputs, _, _ in zip(*sample(task, 6000), strict=True):
        start = inputs.index(11)
        starts[start] += 1
        numbers += torch.bincount(torch.tensor(inputs[:20]), minlength=12)
    assert starts[17:].sum() == 0  # in [0, L - 1 - induction_len)
    torch.testing.assert_close(starts[:17] / 6000, torch.full((17,), 1 / 17), rtol=0, atol=0.015)
    share = numbers[1:11] / numbers[1:11].sum()
    torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0, atol=0.01)


def test_half_of_the_examples_have_several_triggers() -> None:
    counts = [row[:200].count(19) for row in sample(Induction(20, 200, 1, 4), 2000)[0]]
    assert abs(sum(c == 1 for c in counts) / 2000 - 0.5) < 0.04
    assert sum(c == 4 for c in counts) / 2000 > 0.4  # few draws fall beside another
    assert max(counts) == 4


def test_one_trigger_alone_gives_no_dense_target_but_the_final_ones() -> None:
    _, targets, dense = sample(Induction(20, 50, 3), 100)
    assert targets == dense


@pytest.mark.parametrize(("vocab_size", "chance"), [(4, 1 / 2), (20, 1 / 18)])
def test_chance(vocab_size: int, chance: float) -> None:
    assert make_task("induction", vocab_size=vocab_size).chance == pytest.approx(chance)


def test_required_context_grows_with_the_window_as_positions_are_uniform() -> None:
    task = Induction(20, 256)
    found = required_context(task, task.sample(2000, torch.Generator().manual_seed(0)))
    for window in (32, 64, 128):
        told = (window - 3) / 254  # of the 254 starts, those whose next token is in the window
        assert abs(found[window] - (told + (1 - told) / 18)) < 0.04
    assert found[257] == 1.0


def test_window_that_shows_the_tokens_but_not_their_trigger_tells_nothing() -> None:
    task = Induction(10, 8, 2)
    inputs = torch.tensor([[3, 1, 9, 6, 2, 8, 1, 4, 9, 6]])
    assert task.oracle(inputs)[0, 8:].tolist() == [6, 2]
    assert task.oracle(inputs[:, 2:9])[0, -1] == 6
    assert task.oracle(inputs[:, 3:9])[0, -1] == UNKNOWN


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (SeqlenError, {"seqlen": 2}, r"seqlen is 2: induction of 1 token\(s\) needs at least 3"),
        (SeqlenError, {"seqlen": 6, "induction_len": 5}, "needs at least 7"),
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: induction needs at least 4"),
        (ConfigError, {"induction_len": 0}, "induction_len is 0: expected at least 1"),
        (ConfigError, {"n_triggers": 0}, "n_triggers is 0: expected at least 1"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Induction(**{"vocab_size": 20, "seqlen": 64, **given})
