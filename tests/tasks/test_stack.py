from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.stack import Stack

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 38, "seqlen": 128},
    {"n_stacks": 64, "seqlen": 1024},
)
PUSH, POP = 0, 1


def example() -> torch.Tensor:
    """Push 3 on s0, 0 on s1, 1 on s0, and pop s0 twice."""
    first = 4
    return torch.tensor(
        [[PUSH, 2, first + 3, PUSH, 3, first, PUSH, 2, first + 1, POP, 2, first + 1, POP, 2]]
    )


def test_the_example_of_the_docstring() -> None:
    task = Stack(8, 14, 2)
    answers = task.oracle(example())[0].tolist()
    assert [task.describe(a) for a in answers if a != UNKNOWN] == ["v1", "v3"]
    assert [t for t, a in enumerate(answers) if a != UNKNOWN] == [10, 13]
    assert [task.describe(token) for token in range(5)] == ["push", "pop", "s0", "s1", "v0"]


@given(
    stacks=st.integers(1, 6), values=st.integers(2, 9), seqlen=st.integers(5, 100),
    seed=st.integers(0, 2**40),
)  # fmt: skip
def test_every_example_is_played_right(stacks: int, values: int, seqlen: int, seed: int) -> None:
    task = Stack(2 + stacks + values, seqlen, stacks)
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    assert seqlen - 3 < task.input_seqlen <= seqlen
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert len(inputs) == task.input_seqlen
        held: dict[int, list[int]] = defaultdict(list)
        expected = [IGNORE] * len(inputs)
        for t in range(0, len(inputs), 3):
            act, stack, *value = inputs[t : t + 3]
            assert act in (PUSH, POP)
            assert 2 <= stack < 2 + stacks
            assert all(2 + stacks <= v < task.vocab_size for v in value)
            if act == POP:
                expected[t + 1] = held[stack].pop()
                assert value in ([], [expected[t + 1]])
            elif t + 3 <= len(inputs):
                held[stack] += value
            else:
                assert not any(held.values())  # nothing to pop at the end
        assert targets == expected


def test_stacks_values_and_operations_are_drawn_as_they_should_be() -> None:
    inputs = Stack(14, 302, 4).sample(2000, torch.Generator().manual_seed(0)).inputs
    acts, stacks, values = inputs[:, ::3], inputs[:, 1::3], inputs[:, 2::3]
    share = torch.bincount(stacks.flatten() - 2) / stacks.numel()
    torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.01)
    pushed = values[acts[:, :-1] == PUSH]
    share = torch.bincount(pushed - 6) / len(pushed)
    torch.testing.assert_close(share, torch.full((8,), 1 / 8), rtol=0, atol=0.01)
    # From height 1 on, where one stack's first operation has been, both are as likely.
    alone = Stack(14, 302, 1).sample(2000, torch.Generator().manual_seed(0)).inputs[:, ::3]
    assert (alone[:, 0] == PUSH).all()
    assert (alone[:, 1] == PUSH).double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (acts[:, -1] == POP).double().mean() > 0.99


def test_a_window_tells_what_is_pushed_within_it() -> None:
    task, inputs = Stack(8, 14, 2), example()
    assert task.oracle(inputs[:, 1:])[0, -1] == UNKNOWN
    assert task.oracle(inputs[:, 6:11])[0, -1] == 5  # pushed in it
    assert task.oracle(inputs[:, 9:])[0, -1] == UNKNOWN


def test_the_vocabulary_is_by_default_what_the_stacks_need() -> None:
    assert make_task("stack").vocab_size == 38
    assert make_task("stack", n_stacks="64").vocab_size == 98
    assert make_task("stack", n_stacks=64).chance == pytest.approx(1 / 32)


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"n_stacks": 0}, "n_stacks is 0: expected at least 1"),
        (ConfigError, {"vocab_size": 7}, "vocab_size is 7: stack with 4 stacks needs at least 8"),
        (SeqlenError, {"seqlen": 4}, "seqlen is 4: stack needs at least 5"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        Stack(**{"vocab_size": 38, "seqlen": 128, **given})
