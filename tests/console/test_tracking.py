from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from mechbench.console.progress_bar import Console
from mechbench.console.tracking import TrackedConsole, check_tracker
from mechbench.errors import ConfigError

ROW = {
    "step": 5, "tokens": 100, "seqlen": 64, "loss": 1.5, "train_accuracy": 0.25,
    "validation_accuracy": None,
}  # fmt: skip


def track(tracker: str, folder: Path, name: str = "a run") -> None:
    console = TrackedConsole(Console(quiet=True), tracker, folder, name)
    with console.bar(1000, 0, "title") as bar:
        bar.advance(100)
        bar.row(ROW)
        bar.row(ROW | {"step": 10})


def test_csv_holds_the_rows_of_every_run(tmp_path: Path) -> None:
    track("csv", tmp_path, "a")
    track("csv", tmp_path, "b")
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["run"], r["step"], r["loss"]) for r in rows] == [
        ("a", "5", "1.5"), ("a", "10", "1.5"), ("b", "5", "1.5"), ("b", "10", "1.5"),
    ]  # fmt: skip


def test_no_tracker_leaves_no_file(tmp_path: Path) -> None:
    track("none", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("default")  # of TensorBoard's own
def test_tensorboard_reads_the_rows_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs mechbench[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "a run"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(5, 1.5), (10, 1.5)]
    assert "validation_accuracy" not in events.Tags()["scalars"]


def test_absent_packages_and_unknown_names_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"no wandb here: pip install 'mechbench\[wandb\]'"):
        check_tracker("wandb")
    with pytest.raises(ConfigError, match="unknown tracker 'mlflow': choose from none, csv"):
        check_tracker("mlflow")
    check_tracker("csv")


def test_warnings_pass_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = TrackedConsole(Console(quiet=True), "none", tmp_path, "x")
    console.warn("look out")
    console.say("nothing")
    assert capsys.readouterr().err == "mechbench: warning: look out\n"
