from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.data.baselines import shortcut_accuracies
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, make_task
from mechbench.tasks.modular_arithmetic import ModularArithmetic

# Settings whose streams are kept as digests, see CONTRIBUTING.
GOLDEN = (
    {"seqlen": 40},
    {"seqlen": 40, "modulus": 7, "min_seqlen": 3},
    {"seqlen": 40, "brackets": True, "min_seqlen": 3},
    {"seqlen": 255, "modulus": 10, "brackets": True, "depth": 9},
)


def solved(task: ModularArithmetic, text: str) -> int:
    """Return the oracle's answer to an expression; digits and signs are apart by spaces."""
    number = {task.describe(i): i for i in range(task.vocab_size)}
    at = text.split().index("=")
    inputs = [number[sign] for sign in text.split()] + [0] * (task.seqlen - at)
    answers = task.oracle(torch.tensor([inputs]))[0].tolist()
    assert answers == [UNKNOWN] * at + [answers[at]] + [UNKNOWN] * (task.seqlen - at)
    return int(answers[at])


def test_the_examples_of_the_docstring() -> None:
    assert solved(ModularArithmetic(9, 7), "3 - 4 x 2 =") == 0
    brackets = ModularArithmetic(11, 11, brackets=True)
    assert solved(brackets, "( 3 - ( 4 ) ) x 2 + 1 =") == 4
    assert (brackets.describe(9), ModularArithmetic(12, 11).describe(9)) == ("(", "#9")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1 + 2 x 3 =", 2), ("1 - 1 - 1 =", 4), ("0 x 1 + 4 x 3 - 2 =", 0), ("3 - 4 =", 4),
        ("4 x 4 x 4 x 4 x 4 =", 4), ("( ( ( 2 ) ) ) =", 2), ("2 x ( 3 - ( 4 - 1 ) x 4 ) - 3 =", 4),
    ],
)  # fmt: skip
def test_worked_out_by_hand(text: str, answer: int) -> None:
    assert solved(ModularArithmetic(11, 19, brackets=True), text) == answer


@st.composite
def tasks(draw: st.DrawFn) -> ModularArithmetic:
    m, seqlen, brackets = draw(st.integers(2, 30)), draw(st.integers(3, 70)), draw(st.booleans())
    depth = draw(st.integers(1, (seqlen - 1) // 2))
    least = draw(st.just(0) | st.integers(3, seqlen))
    return ModularArithmetic(m + 6, seqlen, m, brackets, depth, least)


@given(task=tasks(), seed=st.integers(0, 2**40))
def test_every_example_is_an_expression_with_the_value_of_python(
    task: ModularArithmetic, seed: int
) -> None:
    batch = task.sample(8, torch.Generator().manual_seed(seed))
    assert batch.dense_targets is batch.targets
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert len(inputs) == task.seqlen + 1
        end = inputs.index(task.modulus + 3)
        assert end % 2 == 1
        assert (task.min_seqlen or task.seqlen) - 1 <= end <= task.seqlen
        signs = [task.describe(token) for token in inputs[:end]]
        depth, deepest = 0, 0
        for sign in signs:
            depth += (sign == "(") - (sign == ")")
            deepest = max(deepest, depth)
        assert deepest <= (task.depth if task.brackets else 0)
        # Digits of several figures are one token: brackets and signs must stand between them.
        text = " ".join(signs)
        assert not re.search(r"\( \)|\) \(|\d \(|\) \d|\d \d|[-+x(] [-+x)]|#", text)
        assert not any(inputs[end + 1 :])
        value = eval(text.replace("x", "*")) % task.modulus
        assert targets == [IGNORE] * end + [value] + [IGNORE] * (task.seqlen - end)


@pytest.mark.parametrize("brackets", [False, True])
def test_digits_operations_and_lengths_are_uniform(brackets: bool) -> None:
    task = ModularArithmetic(11, 9, brackets=brackets, min_seqlen=5)
    inputs = task.sample(8000, torch.Generator().manual_seed(0)).inputs
    ends = torch.bincount((inputs == 8).int().argmax(1)) / 8000
    torch.testing.assert_close(ends[5::2], torch.tensor([0.4, 0.4, 0.2]), rtol=0, atol=0.02)
    counts = torch.bincount(inputs[(inputs == 8).cumsum(1) == 0], minlength=11)
    digits, signs = counts[:5] / counts[:5].sum(), counts[5:8] / counts[5:8].sum()
    torch.testing.assert_close(digits, torch.full((5,), 0.2), rtol=0, atol=0.01)
    torch.testing.assert_close(signs, torch.full((3,), 1 / 3), rtol=0, atol=0.01)
    assert counts[8:].any() == brackets


def test_every_bracketing_can_occur() -> None:
    task = ModularArithmetic(11, 7, brackets=True, depth=2)
    shapes = set()
    for inputs in task.sample(4000, torch.Generator().manual_seed(0)).inputs.tolist():
        text = "".join(task.describe(token) for token in inputs[:7])
        shapes.add(re.sub("[-+x]", "+", re.sub("[0-9]", "1", text)))
    assert shapes == {
        "1+1+1+1", "(1)+1+1", "1+(1)+1", "1+1+(1)", "(1+1)+1", "1+(1+1)", "(1+1+1)",
        "(1)+(1)", "((1))+1", "1+((1))", "((1)+1)", "(1+(1))", "((1+1))",
    }  # fmt: skip


def test_deep_brackets_occur_and_none_is_deeper() -> None:
    task = ModularArithmetic(11, 255, brackets=True, depth=6)
    inputs = task.sample(200, torch.Generator().manual_seed(0)).inputs
    depth = ((inputs == 9).long() - (inputs == 10).long()).cumsum(1)
    assert 0.2 < (depth.amax(1) == 6).float().mean() < 0.4
    assert depth.max() == 6
    assert depth.min() == 0


def test_shortcuts_of_an_example() -> None:
    def guesses(task: ModularArithmetic, text: str) -> dict[str, int]:
        number = {task.describe(i): i for i in range(task.vocab_size)}
        inputs = torch.tensor([[number[sign] for sign in text.split()]])
        assert inputs.shape[1] == task.input_seqlen
        return {name: int(rule(inputs)[0, -1]) for name, rule in task.shortcuts.items()}

    assert guesses(ModularArithmetic(9, 9), "2 x 3 + 1 - 4 x 3 =") == {
        "most frequent answer": 0, "last digit": 3, "last term": 3, "every x read as +": 0,
    }  # fmt: skip
    # The last term is - 4 x 4; without brackets it is 2 - 3 - 16, with + in place of x 2 - 6 + 4.
    brackets = ModularArithmetic(11, 11, brackets=True)
    assert guesses(brackets, "2 - ( 3 - 1 x 4 ) x 4 =") == {
        "most frequent answer": 0, "last digit": 4, "last term": 4, "every x read as +": 0,
        "without the brackets": 3,
    }  # fmt: skip


@pytest.mark.parametrize("brackets", [False, True])
def test_zero_is_the_most_frequent_answer_of_short_expressions(brackets: bool) -> None:
    task = ModularArithmetic(11, 5, brackets=brackets, depth=2)
    batch = task.sample(6000, torch.Generator().manual_seed(0))
    counts = torch.bincount(batch.targets[batch.targets != IGNORE]) / 6000
    assert counts.argmax() == 0
    assert counts[0] > task.chance + 0.02
    found = shortcut_accuracies(task, batch)
    assert found["most frequent answer"] == pytest.approx(counts[0].item())


@pytest.mark.parametrize("brackets", [False, True])
def test_shortcuts_are_of_little_use(brackets: bool) -> None:
    task = ModularArithmetic(11, 40, brackets=brackets)
    found = shortcut_accuracies(task, task.sample(4000, torch.Generator().manual_seed(0)))
    assert max(found.values()) < 0.4
    assert (max(found, key=lambda name: found[name]) == "without the brackets") == brackets


def test_windows_tell_nothing_for_sure() -> None:
    for task in (ModularArithmetic(9, 39), ModularArithmetic(11, 39, brackets=True)):
        inputs = task.sample(64, torch.Generator().manual_seed(0)).inputs[:, 1:]
        assert (task.oracle(inputs) == UNKNOWN).all()
        guess = task.window_guess(inputs, torch.full((64,), 39)).unique().tolist()
        assert guess == [0 if task.brackets else UNKNOWN]


def test_easier_tasks_are_no_deeper_than_fits() -> None:
    task = ModularArithmetic(11, 3073, 5, True, 30, 201)
    assert task.easier(156) == ModularArithmetic(11, 156, 5, True, 30, 156)
    assert task.easier(16) == ModularArithmetic(11, 16, 5, True, 7, 16)
    assert ModularArithmetic(9, 99, depth=30).easier(39) == ModularArithmetic(9, 39, depth=30)


def test_the_vocabulary_is_by_default_what_the_options_need() -> None:
    assert make_task("modular-arithmetic").vocab_size == 9
    assert make_task("modular-arithmetic", modulus="7").vocab_size == 11
    assert make_task("modular-arithmetic", brackets="true").vocab_size == 11
    assert make_task("modular-arithmetic", modulus=7, brackets=True).vocab_size == 13
    assert make_task("modular-arithmetic", modulus=7).chance == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("error", "given", "says"),
    [
        (ConfigError, {"vocab_size": 8}, r"vocab_size is 8: .* modulo 5 needs at least 9 .*`=`\)"),
        (ConfigError, {"vocab_size": 10, "brackets": True}, "needs at least 11 .*, brackets"),
        (ConfigError, {"modulus": 1}, "modulus is 1: expected 2 to 1000"),
        (SeqlenError, {"seqlen": 2}, "seqlen is 2: modular-arithmetic needs at least 3"),
        (ConfigError, {"min_seqlen": 1}, r"min_seqlen is 1: .*; the nearest is 3"),
        (
            ConfigError, {"brackets": True, "depth": 20, "vocab_size": 11},
            "depth is 20: expected 1 to 19, as 40 tokens have no deeper .*; the nearest is 19",
        ),
        (ConfigError, {"brackets": True, "depth": 0, "vocab_size": 11}, "the nearest is 1"),
    ],
)  # fmt: skip
def test_bad_parameters_raise(error: type[Exception], given: dict[str, Any], says: str) -> None:
    with pytest.raises(error, match=says):
        ModularArithmetic(**{"vocab_size": 9, "seqlen": 40, **given})
