"""What a genuine result can be falsified to, and what only looks odd."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from leaderboard.forgeries import FORGERIES, HONEST, OUTCOMES, rehash, retold
from mechbench.leaderboard.submit import submit
from mechbench.leaderboard.truth import Truths
from mechbench.leaderboard.validate import faults
from mechbench.report.results_csv import read_rows


@pytest.fixture(scope="session")
def truths() -> Truths:
    return Truths()


def changed(genuine: dict[str, Any], change: Any) -> dict[str, Any]:
    data = copy.deepcopy(genuine)
    change(data)
    return data if change in OUTCOMES.values() else retold(data)


@pytest.mark.parametrize("name", HONEST)
def test_honest_result_has_no_fault(genuine: dict[str, Any], truths: Truths, name: str) -> None:
    data = changed(genuine, HONEST[name])
    assert faults(data) == []
    assert truths.faults(data) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_is_refuted_in_one_line(genuine: dict[str, Any], truths: Truths, name: str) -> None:
    data = changed(genuine, FORGERIES[name])
    found = faults(data) or truths.faults(data)
    assert found
    assert all("\n" not in line and line.isascii() for line in found)


def test_submit_takes_the_honest_and_no_forgery(
    genuine: dict[str, Any], suite: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    for i, change in enumerate(FORGERIES.values()):
        folder = runs / f"forged-{i}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(changed(genuine, change)))
    honest = runs / "honest"
    honest.mkdir()
    (honest / "result.json").write_text(json.dumps(genuine))
    assert len(FORGERIES) >= 60
    done = submit([runs], tmp_path / "b", suite, without_refused=True)
    assert done.added == 1
    assert done.elsewhere == 0
    assert len({line.partition(": ")[0] for line in done.refused}) == len(FORGERIES)
    (seen,) = {
        row.data["cell_id"]: row.data
        for row in read_rows(tmp_path / "b" / "results.csv")
        if row.status != "not-run"
    }.values()
    assert seen["evaluations"] == genuine["evaluations"]


def test_low_and_failed_results_are_rows(
    genuine: dict[str, Any], suite: Path, tmp_path: Path
) -> None:
    for name, seed in (("far below chance", 0), ("out of memory", 1)):
        data = changed(genuine, HONEST[name])
        data["config"]["seed"] = seed
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(rehash(data)))
    done = submit([tmp_path / "runs"], tmp_path / "b", suite)
    assert done.refused == ()
    rows = read_rows(tmp_path / "b" / "results.csv")
    assert {row.status for row in rows if row.config.operator == "attention"} == {
        "ok", "out-of-memory",
    }  # fmt: skip
