from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.errors import ResultError
from mechbench.record.config import Config
from mechbench.report.collect import collect
from mechbench.report.frame import load_results
from mechbench.report.results_csv import write_rows

Store = Callable[..., Path]
BOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
BOTH = {64: 0.5, 128: 0.25}


def test_frame_has_one_row_a_length_and_keeps_failures(store: Store, tmp_path: Path) -> None:
    store(BOTH, seed=1)
    store(BOTH)
    failed = store({}, operator="attention", status="error", reason="x")
    frame = load_results(tmp_path)
    assert frame[["operator", "seed", "eval_seqlen"]].fillna(0).to_numpy().tolist() == [
        ["attention", 0, 0],
        ["hyena", 0, 64],
        ["hyena", 1, 64],
        ["hyena", 0, 128],
        ["hyena", 1, 128],
    ]
    assert {f.name for f in dataclasses.fields(Config)} <= set(frame.columns)
    wanted = {"accuracy", "n", "status", "reason", "chance", "cell_id", "path"}
    assert wanted | {"seconds_train", "seconds_total", "device", "date"} <= set(frame)
    assert set(frame["seqlen"]) == {64}  # the trained one, not the evaluation's
    assert frame["accuracy"].tolist()[1:] == [0.5, 0.5, 0.25, 0.25]
    assert math.isnan(frame["accuracy"][0])
    assert (frame["status"][0], frame["reason"][0]) == ("error", "x")
    assert frame["path"][0] == str(failed)
    assert not frame["tuning"].any()
    store(BOTH, seed=1_000_000)
    assert load_results(tmp_path)["tuning"].tolist().count(True) == 2  # at both lengths


def test_a_field_of_a_later_version_hides_nothing(store: Store, tmp_path: Path) -> None:
    path = store(BOTH)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": "later", "seqlen": 7}))
    assert load_results(tmp_path)["accuracy"].tolist() == [0.5, 0.25]


def test_corrupt_result_is_not_left_out_of_a_frame_silently(store: Store, tmp_path: Path) -> None:
    store().write_text("{")
    with pytest.raises(ResultError, match="is corrupt"):
        load_results(tmp_path)


def test_a_board_is_read_beside_runs(store: Store, tmp_path: Path) -> None:
    for seed in range(2):
        store(BOTH, seed=seed, folder="first")
    rows, _ = collect([tmp_path / "first"])
    (tmp_path / "board").mkdir()
    table = tmp_path / "board" / "results.csv"
    write_rows(table, rows)
    store(BOTH, seed=2, folder="mine")
    (tmp_path / "mine" / "results.csv").write_text("mine,own\n1,2\n")
    frame = load_results(tmp_path / "board", tmp_path / "mine")
    assert frame[["seed", "eval_seqlen"]].to_numpy().tolist() == [
        [0, 64], [1, 64], [2, 64], [0, 128], [1, 128], [2, 128],
    ]  # fmt: skip
    assert frame["path"].tolist()[:2] == [str(table)] * 2
    assert load_results(table)["accuracy"].tolist() == [0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ResultError, match="columns missing or unknown"):
        load_results(tmp_path / "mine" / "results.csv")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.csv").write_text("mine,own\n1,2\n")
    with pytest.raises(ResultError, match=r"no result.json or leaderboard below"):
        load_results(tmp_path / "other")


def test_committed_boards_are_read_but_for_what_was_not_run() -> None:
    frame = load_results(BOARDS / "recall-vs-length", BOARDS / "smoke")
    assert set(frame["protocol"]) == {2, 3}
    assert "not-run" not in set(frame["status"])
    solved = frame[(frame["outcome"] == "solved") & ~frame["tuning"] & (frame["protocol"] == 3)]
    assert solved.groupby("operator").size()["hyena"] == 12
