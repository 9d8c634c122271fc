from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechbench
from mechbench.catalogue.registry import register_operator
from mechbench.data.streams import evaluation_batches
from mechbench.errors import ConfigError, OperatorError, ResultError
from mechbench.record import results
from mechbench.record.config import Config
from mechbench.record.files import exclusive
from mechbench.record.results import Result, read_result, wilson_interval, write_json
from mechbench.tasks.recall import Recall
from mechbench.training import cell
from mechbench.training.cell import Interrupted
from mechbench.training.model import Backbone

pytestmark = pytest.mark.usefixtures("clean_registry")
L, V, B, STEPS = 16, 8, 8, 30
FILES = ["checkpoint.pt", "config.json", "metrics.csv", "result.json"]
FIELDS = {
    "schema_version", "cell_id", "status", "reason", "config", "chance", "evaluations", "solved",
    "causal", "stop", "parameters", "steps", "train_tokens", "excluded_examples",
    "validation_accuracy", "micro_batch_size", "flops_per_token", "tokens_per_s",
    "peak_memory_mib", "seconds", "fft_conv_backend", "provenance", "train_is_test",
}  # fmt: skip
EVALUATION = {
    "seqlen", "n", "correct", "accuracy", "ci_low", "ci_high", "dense_n", "dense_accuracy",
    "shortcuts", "required_context",
}  # fmt: skip
Hook = Callable[[int, Tensor], object]


class Operator:
    """What the operator "mine" does in training; `hook` sees the number of the step."""

    def __init__(self) -> None:
        self.hook: Hook = lambda step, u: None
        self.passes, self.probed = 0, False
        outer = self

        @register_operator("mine")
        class Mine(nn.Module):
            def __init__(self, d_model: int, max_seqlen: int) -> None:
                super().__init__()
                self.mix = nn.Linear(d_model, d_model)

            def forward(self, u: Tensor) -> Tensor:
                y: Tensor = self.mix(u).cumsum(1)
                if self.training and u.device.type != "meta" and not outer.probed:
                    outer.passes += 1
                    changed = outer.hook(outer.passes, u)
                    y = changed * y if isinstance(changed, float) else y
                return y / torch.arange(1, u.shape[1] + 1, device=u.device)[:, None]

    def once(self, step: int, act: Callable[[], object]) -> None:
        """Act at a step, the first time that it comes."""
        done = []

        def hook(number: int, u: Tensor) -> object:
            if number == step and not done:
                done.append(number)
                return act()
            return None

        self.hook, self.passes = hook, 0


@pytest.fixture
def mine(clean_registry: None, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Return an operator that counts its steps, and not how often the gate looks at it."""
    operator = Operator()

    def unseen(probe: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            operator.probed = True
            try:
                return probe(*args)
            finally:
                operator.probed = False

        return run

    for name in ("before", "after"):
        monkeypatch.setattr(f"mechbench.training.cell.{name}", unseen(getattr(cell, name)))
    return operator


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(operator: str = "mine", folder: str = "runs", **changes: Any) -> Result:
        settings: dict[str, Any] = {
            "seqlen": L, "vocab_size": V, "d_model": 16, "n_layers": 1, "batch_size": B,
            "budget_tokens": STEPS * B * (L + 2), "n_test": 64, "n_validation": 64,
            "validate_every": 10, "device": "cpu", "quiet": True, "out": tmp_path / folder,
        }  # fmt: skip
        return mechbench.run(operator, "recall", **{**settings, **changes})

    return run


def the_folder(tmp_path: Path, folder: str = "runs") -> Path:
    (found,) = (tmp_path / folder).iterdir()
    return found


def rows(folder: Path) -> list[list[str]]:
    """Return metrics.csv without what a clock measures."""
    with (folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return [[v for k, v in row.items() if k not in ("tokens_per_s", "train_s")] for row in table]


def outcome(result: Result) -> dict[str, Any]:
    """Return what must not depend on how often a run was interrupted."""
    varying = {"seconds", "tokens_per_s", "peak_memory_mib", "provenance", "fft_conv_backend"}
    kept = {k: v for k, v in result.data.items() if k not in varying}
    return kept | {"rows": rows(result.path.parent)}


def refuse(*args: object) -> None:
    raise OSError(28, "No space left on device")


def fall_short(step: int, u: Tensor) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory.\n Tried to allocate 2 GiB")


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


def test_configuration_stands_beside_the_result_and_names_the_folder(
    run: Run, tmp_path: Path
) -> None:
    result = run("attention")
    folder = the_folder(tmp_path)
    config = Config.from_dict(json.loads((folder / "config.json").read_text()))
    assert config.to_dict() == result.config
    assert config.cell_id == result.cell_id == folder.name


def test_metrics_are_the_rows_of_training(run: Run, tmp_path: Path) -> None:
    run("attention")
    text = (the_folder(tmp_path) / "metrics.csv").read_text()
    table = list(csv.DictReader(text.splitlines()))
    assert [int(row["step"]) for row in table] == [10, 20, 30]
    assert all(float(row["loss"]) > 0 for row in table)
    assert "\r" not in text


def test_same_call_gives_the_same_result_and_another_seed_another(run: Run) -> None:
    one, same, other = run("hyena"), run("hyena", "again"), run("hyena", seed=1)
    assert outcome(one) == outcome(same)
    assert rows(one.path.parent) != rows(other.path.parent)
    assert one.path != other.path


def test_initial_weights_depend_on_the_seed_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def train(run: object, model: nn.Module, *args: object) -> None:
        found.append(model.head.weight.detach().clone())
        raise ZeroDivisionError

    monkeypatch.setattr("mechbench.training.cell.train", train)
    for state, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(state)
        with pytest.raises(ZeroDivisionError):
            run("attention", seed=seed)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_accuracy_is_that_of_the_stored_weights_on_the_test_stream(run: Run) -> None:
    result = run("attention", seed=4)
    model = Backbone("attention", {}, vocab_size=V, d_model=16, n_layers=1, max_seqlen=L + 2)
    stored = torch.load(result.path.with_name("checkpoint.pt"), weights_only=True)
    model.load_state_dict(stored["model"])
    (batch,) = evaluation_batches(Recall(V, L), 64, 4, "test")
    right = model(batch.inputs)[:, -1].argmax(-1) == batch.targets[:, -1]
    assert result.evaluations[0]["correct"] == int(right.sum())


def test_finished_cell_is_read_and_not_run_again(mine: Operator, run: Run) -> None:
    first = run()
    before, passes = first.path.stat().st_mtime_ns, mine.passes
    assert run() == first
    assert (mine.passes, first.path.stat().st_mtime_ns) == (passes, before)


def test_fresh_run_starts_over(mine: Operator, run: Run) -> None:
    first = run()
    again = run(resume=False)
    assert mine.passes == 2 * STEPS
    assert outcome(again) == outcome(first)


def test_corrupt_result_is_set_aside_and_scored_again_from_the_checkpoint(
    mine: Operator, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run()
    expected, passes = outcome(first), mine.passes
    first.path.write_text('{"status": "o')
    assert outcome(run()) == expected
    assert mine.passes == passes  # no training
    assert "set aside as result.json.corrupt-1" in capsys.readouterr().err
    assert first.path.with_name("result.json.corrupt-1").read_text() == '{"status": "o'


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


def test_folder_in_use_is_left_alone(run: Run, tmp_path: Path) -> None:
    folder = run("attention").path.parent
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with exclusive(folder), pytest.raises(ResultError, match="is in use by process"):
        run("attention", resume=False)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_single_sequence_out_of_memory_is_a_result_that_is_tried_again(
    mine: Operator, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.hook = fall_short
    result = run()
    text = "CUDA out of memory. Tried to allocate 2 GiB"
    assert (result.status, result.stop, result.reason) == ("out-of-memory", "out-of-memory", text)
    assert (result.evaluations, result.steps, result.causal) == ([], 0, True)
    assert result.parameters > 0
    assert "out of memory with a single sequence" in capsys.readouterr().err
    mine.hook = lambda step, u: None  # another machine
    again = run()
    assert (again.status, again.path) == ("ok", result.path)


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


def test_threads_are_no_part_of_the_cell(run: Run) -> None:
    before = torch.get_num_threads()
    plain = run("attention")
    try:
        torch.set_num_threads(before + 1)
        assert run("attention", "more").cell_id == plain.cell_id
    finally:
        torch.set_num_threads(before)


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


def test_error_of_the_user_stores_no_result(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run("hyena", operator_options={"order": 1})
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="unknown operator"):
        run("hyna", "other")
    assert not (tmp_path / "other").exists()


def test_fault_of_ours_is_neither_hidden_nor_stored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mechbench.training.outcome.wilson_interval", fault)
    with pytest.raises(ZeroDivisionError):
        run("attention")
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_continues_to_the_same_result(
    mine: Operator, run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    expected = outcome(run(folder="whole"))
    before = signal.getsignal(number)
    mine.once(13, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match="interrupted at step 13; the same command") as got:
        run()
    assert got.value.signal_number == number
    assert signal.getsignal(number) == before
    folder = the_folder(tmp_path)
    assert not (folder / "result.json").exists()
    assert [row[0] for row in rows(folder)] == ["10"]
    mine.once(8, lambda: os.kill(os.getpid(), number))  # and again, at step 21
    with pytest.raises(Interrupted, match="at step 21"):
        run()
    mine.passes = 0
    assert outcome(run()) == expected
    assert mine.passes == STEPS - 21


PLUGIN = """
import os, signal
import torch
import mechbench

@mechbench.register_operator("fragile")
class Fragile(torch.nn.Module):
    passes = 0

    def __init__(self, d_model, max_seqlen):
        super().__init__()
        self.mix = torch.nn.Linear(d_model, d_model)

    def forward(self, u):
        if self.training and u.device.type != "meta":
            Fragile.passes += 1
            if str(Fragile.passes) == os.environ.get("DIE_AT"):
                os.kill(os.getpid(), signal.SIGKILL)
        return self.mix(u).cumsum(1) / u.shape[1]
"""


def test_killed_run_continues_to_the_same_result(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN)
    expected = run("fragile", "whole", plugins=[str(plugin)])
    code = (
        "import json, sys, mechbench\n"
        "mechbench.run('fragile', 'recall', **json.loads(sys.argv[1]))\n"
    )
    settings = {
        "seqlen": L, "vocab_size": V, "d_model": 16, "n_layers": 1, "batch_size": B,
        "budget_tokens": STEPS * B * (L + 2), "n_test": 64, "n_validation": 64,
        "validate_every": 10, "device": "cpu", "checkpoint_s": 0, "plugins": [str(plugin)],
        "out": str(tmp_path / "runs"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(settings)],
        env={**os.environ, "DIE_AT": "30"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = the_folder(tmp_path)
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "result.json").exists()
    again = run("fragile", plugins=[str(plugin)])
    assert outcome(again) == outcome(expected)
    assert list(again.config["plugins"]) == [str(plugin)]


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


@pytest.mark.parametrize("removed", [{"evaluations": []}, {"config": {}}])
def test_result_without_its_evaluations_or_configuration_is_not_believed(
    mine: Operator,
    run: Run,
    removed: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = run()
    expected, passes = outcome(first), mine.passes
    write_json(first.path, first.data | removed)
    assert outcome(run()) == expected
    assert mine.passes == passes  # scored again from the checkpoint
    assert "is damaged" in capsys.readouterr().err


def test_drawing_operator_continues_to_the_same_result_and_leaves_generators_alone(
    mine: Operator, run: Run
) -> None:
    mine.hook = lambda step, u: 1.0 + float(torch.rand(()))
    before = torch.get_rng_state()
    expected = outcome(run(folder="whole"))
    assert torch.equal(torch.get_rng_state(), before)

    def interrupt(step: int, u: Tensor) -> float:
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0 + float(torch.rand(()))

    mine.hook, mine.passes = interrupt, 0
    with pytest.raises(Interrupted):
        run()
    assert outcome(run()) == expected


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

    monkeypatch.setattr("mechbench.training.cell.load_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("attention")
    assert list((tmp_path / "runs").iterdir()) == []
