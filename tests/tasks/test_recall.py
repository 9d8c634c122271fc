from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import required_context
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, make_task
from mechbench.tasks.recall import Recall

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 20, "seqlen": 64},
    {"vocab_size": 30, "seqlen": 256, "min_distance": 200},
)


def sample(task: Recall, n: int, seed: int = 0) -> tuple[list[list[int]], ...]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return tuple(t.tolist() for t in (batch.inputs, batch.targets, batch.dense_targets))


@st.composite
def tasks(draw: st.DrawFn) -> Recall:
    seqlen = 2 * draw(st.integers(1, 40))
    vocab_size = draw(st.integers(4, 40))
    most = seqlen + 1 if vocab_size >= 6 else min(3, seqlen + 1)
    return Recall(vocab_size, seqlen, draw(st.integers(0, most)))


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(task: Recall, seed: int) -> None:
    V, L, K = task.vocab_size, task.seqlen, (task.vocab_size - 2) // 2
    for inputs, targets, dense in zip(*sample(task, 8, seed), strict=True):
        assert len(inputs) == L + 2
        value_of: dict[int, int] = {}
        last_at: dict[int, int] = {}
        for t in range(0, L, 2):
            key, value = inputs[t], inputs[t + 1]
            assert 1 <= key <= K
            assert K + 1 <= value <= V - 2
            assert value_of.get(key, value) == value  # one map an example
            assert dense[t] == (value if key in value_of else IGNORE)
            assert dense[t + 1] == IGNORE
            value_of[key], last_at[key] = value, t
        assert inputs[L] == V - 1
        query = inputs[L + 1]
        assert query in value_of
        assert L + 1 - last_at[query] >= task.min_distance
        assert targets == [IGNORE] * (L + 1) + [value_of[query]]
        assert dense[L:] == [IGNORE, value_of[query]]


def test_query_is_uniform_over_the_distinct_keys_not_over_the_pairs() -> None:
    rare = total = 0
    for inputs, _, _ in zip(*sample(Recall(8, 6), 20_000), strict=True):
        keys = inputs[0:6:2]
        if len(set(keys)) == 2:
            total += 1
            rare += keys.count(inputs[-1]) == 1
    assert total > 10_000
    assert abs(rare / total - 0.5) < 0.02  # over pairs it would be 1/3


def test_keys_are_uniform_and_values_are_drawn_with_replacement() -> None:
    keys, shared = torch.zeros(6), 0
    for inputs, _, _ in zip(*sample(Recall(14, 60), 2000), strict=True):
        values = dict(zip(inputs[0:60:2], inputs[1:60:2], strict=True))
        shared += len(set(values.values())) < len(values)
        keys += torch.bincount(torch.tensor(inputs[0:60:2]), minlength=7)[1:]
    torch.testing.assert_close(keys / keys.sum(), torch.full((6,), 1 / 6), rtol=0, atol=0.01)
    assert 0.95 < shared / 2000 < 1  # all six differ with probability 6!/6^6 = 0.015


@pytest.mark.parametrize("min_distance", [33, 60, 65])
def test_with_min_distance_other_keys_stay_uniform_behind_it(min_distance: int) -> None:
    counts = torch.zeros(4)
    for inputs, _, _ in zip(*sample(Recall(12, 64, min_distance), 2000), strict=True):
        query = inputs[-1]
        late = [k for t, k in enumerate(inputs[:64]) if t % 2 == 0 and 65 - t < min_distance]
        assert query not in late
        ranks = torch.tensor([k - 1 - (k > query) for k in late])
        counts += torch.bincount(ranks, minlength=4)
    torch.testing.assert_close(counts / counts.sum(), torch.full((4,), 0.25), rtol=0, atol=0.01)


def test_largest_min_distance_puts_the_queried_key_first() -> None:
    for inputs, _, _ in zip(*sample(Recall(12, 64, 65), 50), strict=True):
        assert inputs[0] == inputs[-1]
        assert inputs[-1] not in inputs[2:64]


@pytest.mark.parametrize(("vocab_size", "chance"), [(4, 1), (10, 1 / 4), (30, 1 / 14), (9, 1 / 4)])
def test_chance(vocab_size: int, chance: float) -> None:
    assert make_task("recall", vocab_size=vocab_size).chance == pytest.approx(chance)


def test_required_context_of_the_published_task() -> None:
    task = Recall(30, 8192)
    batch = task.sample(512, torch.Generator().manual_seed(0))
    found = required_context(task, batch)
    for window, accuracy in {16: 0.45, 32: 0.70, 64: 0.90, 128: 0.99}.items():
        assert abs(found[window] - accuracy) < 0.05
    assert list(found) == sorted(found)
    assert list(found.values()) == sorted(found.values())
    assert found[8194] == 1.0


def test_min_distance_makes_the_whole_distance_required() -> None:
    task = Recall(30, 512, min_distance=300)
    found = required_context(task, task.sample(256, torch.Generator().manual_seed(0)))
    assert found[256] == pytest.approx(task.chance)
    assert found[512] > 0.9


def test_easier_task_keeps_the_share_of_min_distance() -> None:
    assert Recall(20, 1024, 512).easier(64) == Recall(20, 64, 32)
    assert Recall(20, 1024, 1025).easier(2).seqlen == 2


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (SeqlenError, {"seqlen": 65}, "seqlen is 65: .* even number .* the nearest is 66"),
        (SeqlenError, {"seqlen": 1}, "the nearest is 2"),
        (SeqlenError, {"seqlen": 0}, "at least 2"),
        (SeqlenError, {"seqlen": -4}, "the nearest is 2"),
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: recall needs at least 4"),
        (ConfigError, {"min_distance": -1}, "min_distance is -1: expected 0 to 65"),
        (ConfigError, {"min_distance": 66}, "min_distance is 66: expected 0 to 65"),
        (ConfigError, {"vocab_size": 5, "min_distance": 4}, "vocab_size of at least 6"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Recall(**{"vocab_size": 20, "seqlen": 64, **given})
