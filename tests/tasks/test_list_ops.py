from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import shortcut_accuracies
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.list_ops import ListOps

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 27, "seqlen": 10},
    {"vocab_size": 20, "seqlen": 65, "modulus": 7},
)


def sample(task: ListOps, n: int, seed: int = 0) -> zip[tuple[list[int], list[int]]]:
    batch = task.sample(n, torch.Generator().manual_seed(seed))
    assert batch.dense_targets is batch.targets
    return zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)


def test_the_example_of_the_docstring() -> None:
    task = ListOps(9, 3, 5)
    answers = task.oracle(torch.tensor([[6, 7, 3, 4, 5, 1, 2, 8]]))[0].tolist()
    assert answers == [UNKNOWN] * 7 + [4]
    assert [task.describe(t) for t in range(4, 9)] == ["4", "+", "-", "x", "="]


@given(
    modulus=st.integers(2, 30), seqlen=st.integers(1, 40), more=st.integers(0, 3),
    seed=st.integers(0, 2**40),
)  # fmt: skip
def test_every_example_is_an_expression_and_its_value(
    modulus: int, seqlen: int, more: int, seed: int
) -> None:
    task = ListOps(modulus + 4 + more, seqlen, modulus)

    def read(tokens: list[int]) -> int:
        token = tokens.pop(0)
        if token < modulus:
            return token
        a, b = read(tokens), read(tokens)
        return {modulus: a + b, modulus + 1: a - b, modulus + 2: a * b}[token]

    for inputs, targets in sample(task, 6, seed):
        assert len(inputs) == 2 * seqlen + 2
        assert inputs[-1] == modulus + 3
        assert sum(modulus <= token < modulus + 3 for token in inputs) == seqlen
        rest = inputs[:-1]
        assert targets == [IGNORE] * (len(inputs) - 1) + [read(rest) % modulus]
        assert not rest


def test_operations_and_operands_are_uniform() -> None:
    inputs = ListOps(11, 9, 7).sample(3000, torch.Generator().manual_seed(0)).inputs
    share = torch.bincount(inputs[:, :-1].flatten(), minlength=11).double()
    numbers, signs = share[:7] / share[:7].sum(), share[7:10] / share[7:10].sum()
    torch.testing.assert_close(numbers, torch.full((7,), 1 / 7).double(), rtol=0, atol=0.008)
    torch.testing.assert_close(signs, torch.full((3,), 1 / 3).double(), rtol=0, atol=0.01)


def test_zero_is_the_most_frequent_answer() -> None:
    task = ListOps(9, 10, 5)
    batch = task.sample(6000, torch.Generator().manual_seed(0))
    share = torch.bincount(batch.targets[:, -1], minlength=5).double() / 6000
    found = shortcut_accuracies(task, batch)
    assert share.argmax() == 0
    assert share[0] > task.chance + 0.05
    assert found["most frequent answer"] == pytest.approx(share[0].item())
    assert max(found.values()) < 0.5
    assert task.window_guess(batch.inputs[:, 3:], torch.full((6000,), 21)).unique().tolist() == [0]


def test_a_cut_expression_tells_nothing() -> None:
    task = ListOps(27, 3)
    inputs = task.sample(20, torch.Generator().manual_seed(0)).inputs
    assert (task.oracle(inputs)[:, -1] != UNKNOWN).all()
    assert (task.oracle(inputs[:, 1:]) == UNKNOWN).all()


def test_sizes() -> None:
    assert make_task("list-ops").vocab_size == 27
    assert make_task("list-ops", modulus=5).vocab_size == 9
    assert ListOps(29, 3).describe(28) == "unused 28"


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 26}, "vocab_size is 26: list-ops modulo 23 .* at least 27"),
        (ConfigError, {"modulus": 1}, "modulus is 1: expected 2 to 1000"),
        (ConfigError, {"modulus": 1001}, "modulus is 1001: expected 2 to 1000"),
        (SeqlenError, {"seqlen": 0}, "seqlen is 0: list-ops needs at least 1 operation"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        ListOps(**{"vocab_size": 27, "seqlen": 10, **given})
    with pytest.raises(ConfigError):
        make_task("list-ops", modulus="many")
