from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE
from mechbench.tasks.memorization import Memorization
from mechbench.training.cell import run

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 256, "seqlen": 32},
    {"vocab_size": 1025, "seqlen": 32, "map_seed": 1},
)


def sample(task: Memorization, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


@given(vocab_size=st.integers(4, 40), pairs=st.integers(1, 20), seed=st.integers(0, 2**40))
def test_every_example_asks_one_and_the_same_map(vocab_size: int, pairs: int, seed: int) -> None:
    task = Memorization(vocab_size, 2 * pairs)
    value_of: dict[int, int] = {}
    for inputs, targets in sample(task, 8, seed):
        assert inputs[1::2] == [vocab_size - 1] * pairs
        assert targets[0::2] == [IGNORE] * pairs
        for key, value in zip(inputs[0::2], targets[1::2], strict=True):
            assert 0 <= key < task.n_keys <= value < vocab_size - 1
            assert value_of.setdefault(key, value) == value
    assert len(set(value_of.values())) == len(value_of)  # different values


def test_the_map_depends_on_its_seed_alone() -> None:
    def values(task: Memorization) -> list[int]:
        keys = torch.arange(task.n_keys)
        inputs = torch.stack([keys, torch.full_like(keys, task.vocab_size - 1)], 1)
        return task.oracle(inputs)[:, 1].tolist()

    assert values(Memorization(64, 32)) == values(Memorization(64, 8))
    assert values(Memorization(64, 32)) != values(Memorization(64, 32, map_seed=1))
    assert len(set(values(Memorization(8192, 32)))) == 4095


def test_a_run_excludes_nothing_and_its_result_says_so(tmp_path: Path) -> None:
    # 3 keys and 2 pairs: nearly every training example also stands in the test set.
    small = {"seqlen": 4, "d_model": 8, "n_layers": 1, "budget_tokens": 1280, "device": "cpu"}
    given = {"vocab_size": 8, "batch_size": 16, "n_test": 64, "n_validation": 64, **small}
    result = run("attention", "memorization", out=tmp_path, quiet=True, **given)
    assert result.train_is_test is True
    assert result.excluded_examples == 0
    result = run("attention", "recall", out=tmp_path, quiet=True, **given)
    assert result.train_is_test is False
    assert result.excluded_examples > 0


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 3}, "vocab_size is 3: memorization needs at least 4"),
        (ConfigError, {"map_seed": -1}, "map_seed is -1: expected 0 or more"),
        (SeqlenError, {"seqlen": 31}, "seqlen is 31: .* the nearest is 32"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Memorization(**{"vocab_size": 256, "seqlen": 32, **given})
