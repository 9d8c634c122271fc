from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ops import fla_double
from torch import Tensor, nn

from mechbench.catalogue.registry import register_operator
from mechbench.data.streams import evaluation_batches
from mechbench.errors import OperatorError, ResultError
from mechbench.record import results
from mechbench.record.config import TUNING_SEED, Config
from mechbench.record.outcome import cell_outcome, outcome_of
from mechbench.record.results import read_result, wilson_interval
from mechbench.tasks.recall import Recall
from mechbench.training import train_cell
from mechbench.training.baton import Baton
from mechbench.training.checkpoint import load_weights
from mechbench.training.lane import SharedLane
from mechbench.training.model import Backbone
from mechbench.training.train_cell import Interrupted
from training.conftest import FILES, STEPS, B, L, Operator, Run, V, outcome, rows, the_folder

pytestmark = pytest.mark.usefixtures("clean_registry")
FIELDS = {
    "schema_version", "cell_id", "status", "reason", "config", "chance", "evaluations", "solved",
    "causal", "stop", "parameters", "steps", "train_tokens", "excluded_examples",
    "validation_accuracy", "micro_batch_size", "flops_per_token", "tokens_per_s",
    "peak_memory_mib", "seconds", "fft_conv_backend", "kernels", "provenance",
    "train_is_test", "outcome",
}  # fmt: skip
EVALUATION = {
    "seqlen", "n", "correct", "accuracy", "ci_low", "ci_high", "dense_n", "dense_accuracy",
    "shortcuts", "required_context",
}  # fmt: skip


def refuse(*args: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("operator", ["hyena", "attention"])
def test_cell_has_its_four_files_and_a_complete_result(
    operator: str, run: Run, tmp_path: Path
) -> None:
    result = run(operator, eval_seqlens=(8, 32))
    folder = the_folder(tmp_path)
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == FILES
    assert set(result.data) == FIELDS
    assert all(field in (results.__doc__ or "") for field in FIELDS)
    assert result.data == read_result(folder / "result.json").data
    assert (result.status, result.stop, result.reason) == ("ok", "budget", None)
    assert (result.solved, result.causal, result.steps) == (False, True, STEPS)
    assert result.train_tokens == STEPS * B * (L + 2)
    assert result.chance == pytest.approx(1 / 3)
    for field in ("parameters", "flops_per_token", "tokens_per_s", "peak_memory_mib"):
        assert result.data[field] > 0
    assert result.micro_batch_size == B
    assert f"{result.validation_accuracy}" == rows(folder)[-1][5]
    found = outcome_of(result.data)
    assert found == cell_outcome(
        [{"tokens": int(row[1]), "validation_accuracy": float(row[5])} for row in rows(folder)],
        64,
    )
    assert (found.kind, found.tokens) == ("censored", result.train_tokens)
    assert result.seconds["train"] > 0
    assert result.seconds["evaluate"] > 0
    assert result.seconds["total"] >= result.seconds["train"] + result.seconds["evaluate"]


def test_every_length_is_scored_with_interval_and_baselines(run: Run) -> None:
    result = run("attention", eval_seqlens=(8, 32))
    assert [e["seqlen"] for e in result.evaluations] == [8, L, 32]
    for e in result.evaluations:
        assert set(e) == EVALUATION
        assert (e["n"], e["accuracy"]) == (64, e["correct"] / 64)
        assert (e["ci_low"], e["ci_high"]) == wilson_interval(e["correct"], 64)
        assert set(e["shortcuts"]) == {"most frequent value", "last value", "first value"}
        assert e["required_context"][str(e["seqlen"] + 2)] == 1.0
        assert e["dense_n"] > 64
    assert result.accuracy(32) == result.evaluations[2]["accuracy"]


def test_metrics_are_the_rows_of_training(run: Run, tmp_path: Path) -> None:
    run("attention")
    text = (the_folder(tmp_path) / "metrics.csv").read_text()
    table = list(csv.DictReader(text.splitlines()))
    assert [int(row["step"]) for row in table] == [10, 20, 30]
    assert all(float(row["loss"]) > 0 for row in table)
    assert "\r" not in text


def test_initial_weights_depend_on_the_seed_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def train(run: object, model: nn.Module, *args: object, **more: object) -> None:
        found.append(model.head.weight.detach().clone())
        raise ZeroDivisionError

    monkeypatch.setattr("mechbench.training.train_cell.train", train)
    for state, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(state)
        with pytest.raises(ZeroDivisionError):
            run("attention", seed=seed)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_accuracy_is_that_of_the_stored_weights_on_the_test_stream(run: Run) -> None:
    result = run("attention", seed=4)
    model = Backbone("attention", {}, vocab_size=V, d_model=16, n_layers=1, max_seqlen=L + 2)
    load_weights(result.path.with_name("checkpoint.pt"), Config.from_dict(result.config), model)
    stored = torch.load(result.path.with_name("checkpoint.pt"), weights_only=True)
    averages = stored["schedule"]["averages"]
    assert all(map(torch.equal, model.parameters(), averages))
    (batch,) = evaluation_batches(Recall(V, L), 64, 4, "test")
    right = model(batch.inputs)[:, -1].argmax(-1) == batch.targets[:, -1]
    assert result.evaluations[0]["correct"] == int(right.sum())


def test_corrupt_checkpoint_is_set_aside_and_training_starts_over(
    mine: Operator, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run()
    expected = outcome(first)
    checkpoint = first.path.with_name("checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    first.path.unlink()
    assert outcome(run()) == expected
    assert mine.passes == 2 * STEPS
    assert "set aside as checkpoint.pt.corrupt-1, training starts over" in capsys.readouterr().err


def test_operator_out_of_memory_from_its_first_pass_on_is_a_result(run: Run) -> None:
    @register_operator("greedy")
    class Greedy(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__()

        def forward(self, u: Tensor) -> Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert run("greedy").status == "out-of-memory"


def test_memory_decides_neither_the_cell_nor_its_score(mine: Operator, run: Run) -> None:
    plain = run()

    def hook(step: int, u: Tensor) -> None:
        if len(u) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    mine.hook = hook
    tight = run(folder="tight")
    assert tight.micro_batch_size == 2
    assert tight.cell_id == plain.cell_id
    losses = [[float(row[3]) for row in rows(r.path.parent)] for r in (tight, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_diverged_run_has_a_result_and_is_not_tried_again(mine: Operator, run: Run) -> None:
    mine.hook = lambda step, u: float("inf") if step >= 13 else None
    result = run()
    assert (result.status, result.stop, result.solved) == ("diverged", "diverged", False)
    assert result.reason == "the training loss is not finite"
    assert result.steps == 12
    assert [row[0] for row in rows(result.path.parent)] == ["10"]
    passes = mine.passes
    assert run() == result
    assert mine.passes == passes


def test_rate_out_of_all_proportion_diverges(run: Run) -> None:
    assert run("attention", lr=1e30).status == "diverged"


def test_operator_that_looks_ahead_is_refused_unless_allowed(run: Run, tmp_path: Path) -> None:
    @register_operator("ahead")
    class Ahead(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__()

        def forward(self, u: Tensor) -> Tensor:
            return u.roll(-1, 1)

    for _ in range(2):  # a second try is no way round
        with pytest.raises(OperatorError, match="operator 'ahead' is not causal"):
            run("ahead")
        refused = read_result(the_folder(tmp_path) / "result.json")
        assert (refused.status, refused.stop, refused.causal) == ("error", "error", False)
        assert (refused.steps, refused.evaluations) == (0, [])
    allowed = run("ahead", allow_noncausal=True)
    assert (allowed.status, allowed.causal) == ("ok", False)
    assert allowed.cell_id != refused.cell_id
    with pytest.raises(OperatorError, match="not causal"):
        run("ahead")


def test_solved_is_not_said_of_what_is_refused_afterwards(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechbench.training.loop.SOLVED", 0.0)
    assert run("attention", seed=1).solved
    monkeypatch.setattr("mechbench.training.train_cell.after", lambda *args: "looks ahead")
    with pytest.raises(OperatorError, match="'attention' looks ahead"):
        run("attention", folder="refused")
    refused = read_result(the_folder(tmp_path, "refused") / "result.json")
    assert (refused.status, refused.stop, refused.solved) == ("error", "error", False)
    assert refused.steps > 0


def test_operator_that_raises_in_training_is_named_and_may_be_mended(
    mine: Operator, run: Run, tmp_path: Path
) -> None:
    expected = outcome(run(folder="whole"))

    def fail() -> None:
        raise ValueError("a bad\nday")

    mine.once(12, fail)
    with pytest.raises(
        OperatorError,
        match=r"^operator 'mine' raised ValueError at line \d+ of its file: a bad day$",
    ) as got:
        run(checkpoint_s=0)
    stored = read_result(the_folder(tmp_path) / "result.json")
    assert (stored.status, stored.stop, stored.reason) == ("error", "error", str(got.value))
    assert (stored.data["steps"], stored.data["train_tokens"]) == (11, 11 * B * (L + 2))
    assert 0 < stored.data["seconds"]["train"] < stored.data["seconds"]["total"]
    mine.passes = 0
    assert outcome(run()) == expected
    assert mine.passes == STEPS - 11  # from the last checkpoint


def test_operator_that_breaks_its_contract_is_stored_as_an_error(run: Run, tmp_path: Path) -> None:
    @register_operator("short")
    class Short(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__()

        def forward(self, u: Tensor) -> Tensor:
            return u[:, 1:]

    with pytest.raises(OperatorError, match="operator 'short' returned shape"):
        run("short")
    assert read_result(the_folder(tmp_path) / "result.json").status == "error"


def test_fault_of_ours_is_neither_hidden_nor_stored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mechbench.training.outcome.wilson_interval", fault)
    with pytest.raises(ZeroDivisionError):
        run("attention")
    assert not list(tmp_path.rglob("result.json"))


def test_full_disk_at_a_checkpoint_is_an_error_and_nothing_is_lost(
    mine: Operator, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(run(folder="whole"))
    fsync = os.fsync
    mine.once(15, lambda: monkeypatch.setattr(os, "fsync", refuse))
    with pytest.raises(ResultError, match=r"cannot write .*: No space left on device$"):
        run(checkpoint_s=0)
    monkeypatch.setattr(os, "fsync", fsync)
    folder = the_folder(tmp_path)
    assert not [p for p in folder.iterdir() if p.name not in (*FILES, ".lock")]
    mine.passes = 0
    assert outcome(run()) == expected
    assert mine.passes == STEPS - 14


def test_convolution_backend_is_that_of_this_run_alone(run: Run) -> None:
    assert run("hyena").fft_conv_backend
    assert run("attention").fft_conv_backend is None


def test_ops_with_kernels_say_what_ran_in_this_run_alone(run: Run) -> None:
    ran = ("delta_rule", "gated_norm", "short_conv")
    assert run("gated-deltanet").kernels == dict.fromkeys(ran, "torch")
    assert run("attention").kernels == {"rotary": "torch"}
    assert run("hyena").kernels == {}


def test_a_backend_that_was_named_stands_in_the_result(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fla_double.install(monkeypatch)
    result = run("retnet", operator_options={"backend": "fla"})
    assert result.status == "ok"
    assert result.kernels is not None
    assert result.kernels["decay_attention"] == "fla"
    assert result.config["operator_options"]["backend"] == "fla"
    assert result.flops_per_token == run("retnet").flops_per_token


def test_configuration_is_stored_when_training_begins_and_with_every_result(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @register_operator("short")
    class Short(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__()

        def forward(self, u: Tensor) -> Tensor:
            return u[:, 1:]

    with pytest.raises(OperatorError):
        run("short", "refused")
    assert read_result(the_folder(tmp_path, "refused") / "result.json").status == "error"
    assert (the_folder(tmp_path, "refused") / "config.json").exists()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mechbench.training.train_cell.load_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("attention")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("scoring", [False, True])
def test_a_lane_that_is_stopped_ends_its_cell_between_parts(
    scoring: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [] if scoring else [15]
    lane = SharedLane(Baton(), lambda: told[0] if told else None)

    def evaluation(*args: Any) -> dict[str, Any]:
        told.append(15)
        return original(*args)

    original = train_cell.evaluation
    monkeypatch.setattr(train_cell, "evaluation", evaluation)
    with lane.on("cpu"), pytest.raises(Interrupted) as stop:
        run("attention", lane=lane)
    assert stop.value.signal_number == 15
    runs = tmp_path / "runs"
    assert len(list(runs.glob("*/checkpoint.pt"))) == scoring
    assert not list(runs.glob("*/result.json"))
    assert run("attention").steps == STEPS


@pytest.mark.parametrize("seed", [0, TUNING_SEED])
def test_a_budget_that_may_end_before_full_length_is_told_unless_it_is_a_part(
    seed: int, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell that chooses a rate has part of a budget at first."""
    run("attention", seqlen=256, seed=seed, budget_tokens=20 * B * (256 + 2))
    said = capsys.readouterr().err
    warned = "may end before seqlen 256: a curriculum that is not learnt reaches it after" in said
    assert warned == (seed == 0)
