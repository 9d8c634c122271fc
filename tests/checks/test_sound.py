from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from checks import broken_operators as broken
from checks.broken_operators import subject
from mechbench.catalogue.registry import OPERATORS
from mechbench.checks.sound import soundness

pytestmark = pytest.mark.usefixtures("clean_registry")
CAUSAL = {"causal by value", "causal by gradient", "causal once trained"}
BUILT_IN = [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]


def verdicts(component: object) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in soundness(subject(component))}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_ins_are_sound(name: str) -> None:
    assert set(verdicts(name).values()) == {"PASS"}


@pytest.mark.parametrize(
    ("fault", "failed"),
    [
        *((sound, set()) for sound in broken.SOUND),
        (broken.Noncausal, CAUSAL),
        (broken.Faint, CAUSAL),
        (broken.WholeMaximum, CAUSAL),
        (broken.FarAhead, CAUSAL),
        (broken.AtOddBlocks, CAUSAL),
        (broken.InTraining, CAUSAL),
        (broken.InLargeBatches, CAUSAL),
        (broken.Hashed, CAUSAL),
        (broken.Opening, {"causal once trained"}),
        (broken.BatchStatistics, CAUSAL),
        (broken.WithoutGradients, {"causal by value", "causal once trained"}),
        (broken.BatchDependent, {"rows of a batch apart", *CAUSAL}),
        (broken.NanInHalf, {"finite in bfloat16"}),
        (broken.NanGradientInHalf, {"finite in bfloat16"}),
        (broken.DeadParameter, {"gradient everywhere"}),
        (broken.Forgetful, {"state dict"}),
    ],
)
def test_each_fault_fails_its_own_check_and_no_other(fault: type, failed: set[str]) -> None:
    found = verdicts(fault)
    assert {name for name, verdict in found.items() if verdict == "FAIL"} == failed
    assert "-" not in found.values()


def test_looking_ahead_after_many_calls_is_found_by_training() -> None:
    broken.AfterCalls.calls = 0
    examined = dataclasses.replace(subject(broken.AfterCalls), steps=80)
    (finding,) = [x for x in soundness(examined) if x.verdict == "FAIL"]
    assert finding.name == "causal once trained"


def test_looking_ahead_beyond_the_length_of_the_other_lines_is_found() -> None:
    class VeryFar(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            return super().forward(u) + (broken.shifted(u) if u.shape[1] > 200 else 0)

    findings = soundness(subject(VeryFar, seqlen=256))
    assert {x.name for x in findings if x.verdict == "FAIL"} == CAUSAL


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("layer", [broken.NoParameters, nn.Linear])
def test_scripted_operator_is_sound(layer: type[nn.Module]) -> None:
    def scripted(d_model: int, max_seqlen: int) -> nn.Module:
        return torch.jit.script(layer(d_model, d_model))

    assert set(verdicts(scripted).values()) == {"PASS"}


def test_operator_that_gets_no_gradient_fails_there_alone() -> None:
    (finding,) = [x for x in soundness(subject(broken.Detached)) if x.verdict == "FAIL"]
    assert (finding.name, finding.text) == ("gradient everywhere", "none in 1 of 1: scale")


def test_causality_of_what_does_not_repeat_itself_is_not_measured() -> None:
    findings = {x.name: x for x in soundness(subject(broken.DropoutAlways))}
    assert findings["repeats agree"].verdict == "FAIL"
    assert findings["causal by value"].verdict == "-"
    assert findings["causal by value"].text == (
        "not measured: it gives another output for the same input in evaluation mode: dropout or "
        "kept state"
    )


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
    assert {finding.verdict for finding in rest} == {"-"}
    assert len(rest) == 9


def test_dead_parameters_are_named() -> None:
    (finding,) = [x for x in soundness(subject(broken.DeadParameter)) if x.verdict == "FAIL"]
    assert finding.text == "none in 2 of 3: unused, cancelled"
