from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import shortcut_accuracies
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.flip_flop import FlipFlop

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"vocab_size": 5, "seqlen": 512},
    {"vocab_size": 8, "seqlen": 64, "p_ignore": 0.1, "tested_p_ignore": 0.98},
)
W, R, I = 2, 3, 4  # noqa: E741


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_example_of_the_docstring() -> None:
    inputs = torch.tensor([[W, 1, I, 0, R, 1, I, 0, R]])
    task = FlipFlop(5, 10)
    assert task.oracle(inputs)[0].tolist() == [-1, -1, -1, -1, 1, -1, -1, -1, 1]
    assert [task.describe(token) for token in range(6)] == ["0", "1", "w", "r", "i", "5"]


@given(half=st.integers(2, 40), p=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_every_example_has_the_structure_of_the_docstring(half: int, p: float, seed: int) -> None:
    task = FlipFlop(5, 2 * half, p)
    batch = task.sample(8, generator(seed))
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert len(inputs) == task.input_seqlen == 2 * half - 1
        acts, bits = inputs[::2], [*inputs[1::2], targets[-1]]
        assert (acts[0], acts[-1]) == (W, R)
        stored = None
        for i, (act, bit) in enumerate(zip(acts, bits, strict=True)):
            assert bit in (0, 1)
            if act == W:
                stored = bit
            assert act in (W, R, I)
            assert act != R or bit == stored
            assert targets[2 * i] == (bit if act == R else IGNORE)
        assert set(targets[1::2]) <= {IGNORE}


def test_instructions_and_bits_come_as_often_as_the_source_says() -> None:
    acts = FlipFlop(5, 202, 0.8).sample(2000, generator()).inputs[:, 2:-1]
    share = torch.bincount(acts[:, ::2].flatten(), minlength=5)[2:] / acts[:, ::2].numel()
    torch.testing.assert_close(share, torch.tensor([0.1, 0.1, 0.8]), rtol=0, atol=0.01)
    ignored = acts[:, 1::2][acts[:, ::2] == I]
    assert ignored.double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_window_tells_what_was_written_or_read_within_it() -> None:
    task = FlipFlop(5, 64)
    assert task.oracle(torch.tensor([[1, I, 0, R]]))[0, -1] == UNKNOWN  # 1 of what?
    assert task.oracle(torch.tensor([[R, 1, I, 0, R]]))[0, -1] == 1


def test_the_test_set_may_be_sparser_or_denser_than_training() -> None:
    task = make_task("flip-flop", tested_p_ignore="0.98")
    assert isinstance(task, FlipFlop)
    assert task.tested() == FlipFlop(5, 512, 0.98)
    assert task.easier(32).tested() == FlipFlop(5, 32, 0.98)
    assert FlipFlop(5, 512).tested() == FlipFlop(5, 512)
    sparse = shortcut_accuracies(task.tested(), task.tested().sample(500, generator()))
    dense = shortcut_accuracies(task, task.sample(500, generator()))
    short = "bit told in the last 16 tokens"
    assert sparse[short] < 0.7 < 0.9 < dense[short]


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 4}, "vocab_size is 4: flip-flop needs at least 5"),
        (SeqlenError, {"seqlen": 7}, "seqlen is 7: .* the nearest is 8"),
        (SeqlenError, {"seqlen": 2}, "the nearest is 4"),
        (ConfigError, {"p_ignore": 1.5}, r"p_ignore is 1.5: expected 0 to 1"),
        (ConfigError, {"tested_p_ignore": -0.5}, r"tested_p_ignore is -0.5: expected 0 to 1"),
    ],
)
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        FlipFlop(**{"vocab_size": 5, "seqlen": 64, **given})
