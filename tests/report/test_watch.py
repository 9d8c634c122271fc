from __future__ import annotations

import json
from pathlib import Path

import pytest

from mechbench.errors import ResultError
from mechbench.report.watch import curve, picture, read_runs

METRICS = """step,tokens,seqlen,loss,train_accuracy,validation_accuracy
5,100,64,2.5,0.1,
10,200,64,1.25,0.9,0.875
"""


def run(root: Path, operator: str, metrics: str | None, status: str | None = None) -> None:
    folder = root / operator
    folder.mkdir(parents=True)
    config = {
        "operator": operator, "task": "recall", "seqlen": 64, "seed": 1, "budget_tokens": 400,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    if metrics is not None:
        (folder / "metrics.csv").write_text(metrics)
    if status is not None:
        (folder / "result.json").write_text(json.dumps({"status": status}))


def test_runs_are_shown_with_their_curves(tmp_path: Path) -> None:
    run(tmp_path, "hyena", METRICS)
    run(tmp_path, "attention", METRICS, "ok")
    run(tmp_path, "h3", None)
    lines = {line.split()[0]: line.split() for line in picture(read_runs(tmp_path)).splitlines()}
    assert lines["hyena"] == [
        "hyena", "recall", "64", "seed", "1", "10", "50%", "1.250", "90.0%", "87.5%", "training",
        "▁█",
    ]  # fmt: skip
    assert lines["attention"][-2:] == ["ok", "▁█"]
    assert lines["h3"][5:] == ["-"] * 5 + ["training"]


def test_half_written_files_are_left_for_the_next_look(tmp_path: Path) -> None:
    run(tmp_path, "hyena", METRICS)
    run(tmp_path, "broken", METRICS)
    (tmp_path / "broken" / "config.json").write_text("{")
    assert [r.name for r in read_runs(tmp_path)] == ["hyena recall 64 seed 1"]


def test_nothing_to_watch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no run below"):
        read_runs(tmp_path)
    with pytest.raises(ResultError, match="does not exist"):
        read_runs(tmp_path / "absent")


def test_curves_fit_their_width() -> None:
    assert curve([0.0, 0.5, 1.0], 8) == "▁▅█"
    assert curve([i / 99 for i in range(100)], 8) == "▁▂▃▄▅▆▇█"
