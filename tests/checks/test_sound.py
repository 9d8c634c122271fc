from __future__ import annotations

import pytest

from checks import broken_operators as broken
from checks.broken_operators import subject
from mechbench.checks.sound import soundness
from mechbench.registry import OPERATORS

pytestmark = pytest.mark.usefixtures("clean_registry")
BUILT_IN = [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]


def verdicts(component: object) -> dict[str, str]:
    return {line.name: line.verdict for line in soundness(subject(component))}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_ins_are_sound(name: str) -> None:
    assert set(verdicts(name).values()) == {"PASS"}


@pytest.mark.parametrize(
    ("fault", "lines"),
    [
        (broken.Base, set()),
        (broken.FixedConv, set()),
        (broken.Noncausal, {"causal by value", "causal by gradient"}),
        (broken.BatchDependent, {"rows of a batch apart"}),
        (broken.NanInHalf, {"finite in bfloat16"}),
        (broken.NanGradientInHalf, {"finite in bfloat16"}),
        (broken.DeadParameter, {"gradient everywhere"}),
        (broken.Forgetful, {"state dict"}),
    ],
)
def test_each_fault_fails_its_own_line_and_no_other(fault: type, lines: set[str]) -> None:
    found = verdicts(fault)
    assert {name for name, verdict in found.items() if verdict == "FAIL"} == lines
    assert "-" not in found.values()


def test_operator_that_does_not_repeat_itself_fails_there() -> None:
    assert verdicts(broken.Restless)["repeats agree"] == "FAIL"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (broken.WrongShape, r"(2, 1, 7) for an input (2, 1, 8)"),
        (broken.WrongDtype, "torch.float64 for an input of torch.float32"),
        (broken.Raising, "raised ValueError: too long"),
    ],
)
def test_wrong_shape_is_said_and_the_rest_not_measured(fault: type, text: str) -> None:
    first, *rest = soundness(subject(fault))
    assert (first.name, first.verdict, first.text) == ("shape and dtype", "FAIL", text)
    assert {line.verdict for line in rest} == {"-"}
    assert len(rest) == 8


def test_dead_parameters_are_named() -> None:
    (line,) = [x for x in soundness(subject(broken.DeadParameter)) if x.verdict == "FAIL"]
    assert line.text == "none in 2 of 3: unused, cancelled"
