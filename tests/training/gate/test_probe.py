from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import broken_operators as broken
from checks.broken_operators import model
from torch import Tensor, nn

import mechbench
from mechbench.catalogue.registry import register_operator
from mechbench.console.progress_bar import Console
from mechbench.errors import OperatorError
from mechbench.record.config import Config
from mechbench.record.results import Result, read_result
from mechbench.tasks.base import Batch
from mechbench.tasks.icl_functions import IclFunctions
from mechbench.tasks.recall import Recall
from mechbench.training.gate import after, before, settle
from mechbench.training.model import Backbone

pytestmark = pytest.mark.usefixtures("clean_registry")
TASK = Recall(8, 16)
CONFIG = Config(
    "mine", "recall", seqlen=16, vocab_size=8, d_model=8, eval_seqlens=(16,), budget_tokens=1
)
STEPS, B = 30, 8
WITH_WEIGHTS = (broken.Opening, broken.AfterCalls)  # that show it only once trained
BEFORE = [c for c in broken.LOOKING_AHEAD if c not in WITH_WEIGHTS]


def gate(
    component: Any, config: Config = CONFIG, *, rows: int = B, warn: Any = None
) -> tuple[str | None, nn.Module]:
    built = model(component, max_seqlen=64)
    tasks = [Recall(8, length) for length in config.eval_seqlens]
    return before(built, config, tasks, rows, "cpu", warn or pytest.fail), built


def examples(task: Any = TASK, rows: int = 32) -> Batch:
    batch: Batch = task.sample(rows, torch.Generator().manual_seed(0))
    return batch


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def run(component: Any, **changes: Any) -> Result:
        register_operator("mine")(component)
        settings: dict[str, Any] = {
            "seqlen": 16, "vocab_size": 8, "d_model": 8, "n_layers": 1, "batch_size": B,
            "budget_tokens": STEPS * B * 18, "n_test": 64, "n_validation": 64,
            "validate_every": 10, "device": "cpu", "quiet": True, "out": tmp_path,
        }  # fmt: skip
        return mechbench.run("mine", "recall", **{**settings, **changes})

    return run


def stored(tmp_path: Path) -> Result:
    (path,) = tmp_path.rglob("result.json")
    return read_result(path)


@pytest.mark.parametrize("component", broken.SOUND)
def test_sound_operators_pass_before_and_after(component: type[nn.Module]) -> None:
    found, built = gate(component)
    assert found is None
    assert after(built, CONFIG, TASK, examples(), B, 32, "cpu") is None


@pytest.mark.parametrize("component", BEFORE)
def test_looking_ahead_is_found_before_a_step_is_taken(
    component: type[nn.Module], run: Any, tmp_path: Path
) -> None:
    with pytest.raises(OperatorError, match="operator 'mine' is not causal: "):
        run(component, eval_seqlens=(32,))
    result = stored(tmp_path)
    assert (result.status, result.causal, result.steps) == ("error", False, 0)


@pytest.mark.parametrize("component", WITH_WEIGHTS)
def test_looking_ahead_that_training_brings_about_is_found_after_it(
    component: Any, run: Any, tmp_path: Path
) -> None:
    component.calls = 0
    with pytest.raises(OperatorError, match="operator 'mine' is not causal: ") as got:
        run(component)
    result = stored(tmp_path)
    assert (result.status, result.causal, result.steps) == ("error", False, STEPS)
    assert (result.evaluations, result.reason) == ([], str(got.value))


def test_allowed_it_is_scored_and_marked(run: Any) -> None:
    result = run(broken.Opening, allow_noncausal=True)
    assert (result.status, result.causal) == ("ok", False)
    assert result.evaluations


def test_looking_ahead_under_autocast_alone_is_found(run: Any) -> None:
    with pytest.raises(OperatorError, match="is not causal"):
        run(broken.InHalf, dtype="bfloat16")
    assert run(broken.InHalf, seed=1).causal


def test_looking_ahead_in_batches_as_large_as_scoring_takes_is_found() -> None:
    class InHugeBatches(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            return super().forward(u) + (broken.shifted(u) if len(u) > 20 else 0)

    found, built = gate(InHugeBatches)
    assert found is None
    assert after(built, CONFIG, TASK, examples(), B, 20, "cpu") is None
    assert "moves by" in str(after(built, CONFIG, TASK, examples(), B, 32, "cpu"))


def test_kernels_for_half_types_alone_are_judged_in_them() -> None:
    class Half(broken.Base):
        ahead = 0.0

        def forward(self, u: Tensor) -> Tensor:
            if not torch.is_autocast_enabled("cpu"):
                raise AssertionError("bfloat16 only")
            return super().forward(u) + self.ahead * broken.shifted(u)

    class HalfAhead(Half):
        ahead = 1.0

    config = Config(**{**CONFIG.__dict__, "dtype": "bfloat16"})
    assert gate(Half, config)[0] is None
    register_operator("ahead")(HalfAhead)
    built = model("ahead")
    assert before(built, config, [TASK], B, "cpu", pytest.fail) is not None


def test_model_and_random_state_are_left_as_they_were() -> None:
    class Noisy(broken.Base):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__(d_model, max_seqlen)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, u: Tensor) -> Tensor:
            if self.training:
                self.seen += 1
            return nn.functional.dropout(super().forward(u), 0.1, self.training)

    built = model(Noisy, max_seqlen=64).train()
    weights = {k: v.clone() for k, v in built.state_dict().items()}
    state = torch.get_rng_state()
    assert before(built, CONFIG, [TASK], B, "cpu", pytest.fail) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, weights[k]) for k, v in built.state_dict().items())
    assert all(p.grad is None for p in built.parameters())
    assert built.training


def test_kept_state_and_dropout_are_told_as_what_they_are() -> None:
    with pytest.raises(
        OperatorError,
        match=r"^operator 'mine' gives another output for the same input in evaluation mode: "
        r"dropout or kept state$",
    ):
        gate(broken.DropoutAlways)


def test_operator_that_no_gradient_reaches_is_refused() -> None:
    with pytest.raises(
        OperatorError, match="'mine' cannot learn: no gradient reaches any of its 2"
    ):
        gate(broken.Detached)


class Positions(broken.Base):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u.detach())


def test_operator_that_passes_no_gradient_on_is_warned_of() -> None:
    told: list[str] = []
    assert gate(Positions, warn=told.append)[0] is None
    assert told == [
        "no gradient flows back through operator 'mine' to its input (a detached input, or one "
        "that is not used?)"
    ]


def test_longest_length_is_tried_before_training(run: Any, tmp_path: Path) -> None:
    class Short(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            if u.shape[1] > 40:
                raise ValueError("too long for me")
            return super().forward(u)

    with pytest.raises(OperatorError, match=r"raised ValueError at line .*: too long for me"):
        run(Short, eval_seqlens=(64,))
    assert stored(tmp_path).steps == 0


@pytest.mark.parametrize(
    ("component", "text"),
    [
        (broken.InPlace, "raised RuntimeError in its backward pass: one of the variables"),
        (broken.WrongDtype, "returned torch.float64 for an input of torch.float32"),
        (broken.Leaving, "raised SystemExit at line "),
        (broken.Lazy, "has a lazy parameter 'mix.weight'"),
        (broken.WrongLater, r"returned shape \(8, 17, 8\): expected \(8, 18, 8\)"),
    ],
)
def test_whatever_an_operator_does_is_stored_in_its_name(
    component: Any, text: str, run: Any, tmp_path: Path
) -> None:
    broken.WrongLater.steps = 0
    with pytest.raises(OperatorError, match=f"^operator 'mine' {text}"):
        run(component)
    assert stored(tmp_path).status == "error"


def test_nan_at_the_trained_length_is_an_error_beyond_it_a_score(run: Any) -> None:
    class Far(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            y = super().forward(u)
            return y / 0 if u.shape[1] > 20 else y

    with pytest.raises(OperatorError, match="'mine' gives NaN or infinity at 34 tokens"):
        run(Far, seqlen=32)
    result = run(Far, eval_seqlens=(32,))
    assert (result.status, result.causal) == ("ok", True)
    assert result.reason == "logits are not finite at seqlen 32"
    trained, far = result.evaluations
    assert "non_finite" not in trained
    assert (far["non_finite"], far["correct"], far["n"]) == (64, 0, 64)


@pytest.mark.parametrize(("component", "causal"), [("hyena", True), (broken.Noncausal, False)])
def test_causality_is_checked_on_numbers_too(component: Any, causal: bool, run: Any) -> None:
    task = IclFunctions(vocab_size=3, seqlen=8)
    if not isinstance(component, str):
        register_operator("mine")(component)
        component = "mine"
    L = task.input_seqlen
    built = Backbone(
        component, {}, vocab_size=3, d_model=8, n_layers=2, max_seqlen=L, input_dim=task.input_dim
    )
    config = Config(
        "mine", "icl-functions", vocab_size=3, seqlen=8, eval_seqlens=(8,), budget_tokens=1
    )
    assert (before(built, config, [task], B, "cpu", pytest.fail) is None) == causal


def test_operator_that_hangs_in_a_run_is_told_of(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    told = threading.Event()

    class Waits(broken.Base):
        def forward(self, u: Tensor) -> Tensor:
            if u.device.type != "meta":
                assert told.wait(60)  # until the watchdog has spoken
            return super().forward(u)

    class Ears(Console):
        def warn(self, text: str) -> None:
            heard.append(text)
            told.set()

    monkeypatch.setattr("mechbench.training.gate.watchdog.HANGS_S", 0.01)
    assert run(Waits, console=Ears(quiet=True)).status == "ok"
    assert heard[0].startswith("operator 'mine' has not returned for 0 s (forward at L=18); ")
    assert len(heard) == 1


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return one element for every probe from now on."""
    found: list[None] = []
    monkeypatch.setattr("mechbench.training.gate.probe._judge", lambda *args: found.append(None))
    monkeypatch.setattr("mechbench.training.gate.probe._passed", set())
    return found


def test_what_passed_with_one_seed_is_not_probed_before_the_next(probes: list[None]) -> None:
    for config in (CONFIG, replace(CONFIG, seed=1, lr=0.1)):
        assert gate(broken.Base, config)[0] is None
        assert len(probes) == 1
    assert gate(broken.Base, replace(CONFIG, vocab_size=9))[0] is None
    assert len(probes) == 2


def test_what_was_warned_of_is_told_every_time(probes: list[None]) -> None:
    told: list[str] = []
    for n in (1, 2):
        assert gate(Positions, warn=told.append)[0] is None
        assert len(probes) == len(told) == n


def test_a_look_ahead_once_found_stays_found() -> None:
    allowed = Config(**{**CONFIG.__dict__, "allow_noncausal": True})
    result: dict[str, Any] = {}  # as of a process that follows
    settle("it moves", result, allowed)
    settle(None, result, allowed)
    assert result["causal"] is False
