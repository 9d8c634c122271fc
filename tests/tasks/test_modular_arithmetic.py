from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.modular_arithmetic import ModularArithmetic

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"seqlen": 40},
    {"seqlen": 40, "modulus": 7, "min_seqlen": 3},
)


def test_the_example_of_the_docstring() -> None:
    task = ModularArithmetic(9, 7, min_seqlen=3)
    inputs = torch.tensor([[3, 6, 4, 7, 2, 8, 0, 0]])
    assert task.oracle(inputs)[0].tolist() == [UNKNOWN] * 5 + [0] + [UNKNOWN] * 2
    assert "".join(task.describe(token) for token in inputs[0].tolist()) == "3-4x2=00"
    assert task.describe(9) == "#9"


@given(
    m=st.integers(2, 30), seqlen=st.integers(3, 70), varied=st.booleans(),
    seed=st.integers(0, 2**40),
)  # fmt: skip
def test_answers_are_pythons(m: int, seqlen: int, varied: bool, seed: int) -> None:
    task = ModularArithmetic(m + 4, seqlen, m, 3 * varied)
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert len(inputs) == seqlen + 1
        end = inputs.index(m + 3)
        assert end % 2 == 1
        assert (3 if varied else seqlen - 1) <= end <= seqlen
        assert all(token < m for token in inputs[:end:2])
        assert all(m <= token < m + 3 for token in inputs[1:end:2])
        assert not any(inputs[end + 1 :])
        text = " ".join(task.describe(token) for token in inputs[:end]).replace("x", "*")
        assert targets == [IGNORE] * end + [eval(text) % m] + [IGNORE] * (seqlen - end)


def test_digits_operations_and_lengths_are_uniform() -> None:
    task = ModularArithmetic(9, 9, min_seqlen=5)
    inputs = task.sample(8000, torch.Generator().manual_seed(0)).inputs
    ends = torch.bincount((inputs == 8).int().argmax(1)) / 8000
    torch.testing.assert_close(ends[5::2], torch.tensor([0.4, 0.4, 0.2]), rtol=0, atol=0.02)
    digits = torch.bincount(inputs[:, :5:2].flatten()) / (3 * 8000)
    torch.testing.assert_close(digits, torch.full((5,), 0.2), rtol=0, atol=0.01)
    signs = torch.bincount(inputs[:, 1:5:2].flatten())[5:] / (2 * 8000)
    torch.testing.assert_close(signs, torch.full((3,), 1 / 3), rtol=0, atol=0.01)


def test_shortcuts_of_an_example() -> None:
    task = ModularArithmetic(9, 9)
    inputs = torch.tensor([[2, 7, 3, 5, 1, 6, 4, 7, 3, 8]])  # 2 x 3 + 1 - 4 x 3
    found = {name: int(rule(inputs)[0, -1]) for name, rule in task.shortcuts.items()}
    assert found == {"zero": 0, "last digit": 3, "last term": 3, "every x read as +": 0}
    assert task.oracle(inputs)[0, -1] == 0


def test_the_vocabulary_is_by_default_what_the_modulus_needs() -> None:
    assert make_task("modular-arithmetic").vocab_size == 9
    assert make_task("modular-arithmetic", modulus="7").vocab_size == 11
    assert make_task("modular-arithmetic", modulus=7).chance == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 8}, "vocab_size is 8: .* modulo 5 needs at least 9"),
        (ConfigError, {"modulus": 1}, "modulus is 1: expected 2 to 1000"),
        (SeqlenError, {"seqlen": 2}, "seqlen is 2: modular-arithmetic needs at least 3"),
        (ConfigError, {"min_seqlen": 1}, r"min_seqlen is 1: .*; the nearest is 3"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        ModularArithmetic(**{"vocab_size": 9, "seqlen": 40, **given})
