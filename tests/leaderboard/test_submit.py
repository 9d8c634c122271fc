from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.errors import ConfigError
from mechbench.leaderboard.store import read_rows
from mechbench.leaderboard.submit import submit
from mechbench.resolve import resolve

Make = Callable[..., dict[str, Any]]
Save = Callable[[dict[str, Any]], Path]
SUITE = """title = "T"
tasks = ["recall"]
operators = ["hyena", "attention"]
seeds = [0, 1]
[settings]
seqlen = 64
n_test = 1000
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def at(make: Make) -> Make:
    """Return a made-up result of a cell as `mechbench run` resolves it."""

    def result(operator: str = "hyena", accuracy: float = 0.9, **settings: Any) -> dict[str, Any]:
        config, _ = resolve(
            operator, "recall", **{"seqlen": 64, "n_test": 1000, "device": "cpu", **settings}
        )
        data = make({config.seqlen: accuracy})
        return data | {"config": config.to_dict(), "cell_id": config.cell_id}

    return result


def statuses(folder: Path) -> Counter[str]:
    return Counter(row.status for row in read_rows(folder / "results.csv"))


def test_results_are_added_and_what_is_missing_is_listed(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    board = tmp_path / "boards" / "mine"
    save(at())
    save(at(seqlen=128))  # of another suite
    done = submit([tmp_path / "runs"], board, suite)
    assert (done.added, done.known, done.elsewhere, done.refused, done.not_run) == (1, 0, 1, (), 3)
    assert statuses(board) == {"ok": 1, "not-run": 3}
    assert (board / "suite.toml").read_text() == SUITE
    # Later the copy of the suite will do, and a result takes the place of what was not run.
    save(at("attention", 0.8, seed=1))
    done = submit([tmp_path / "runs"], board)
    assert (done.added, done.known, done.not_run) == (1, 1, 2)
    assert statuses(board) == {"ok": 2, "not-run": 2}
    before = (board / "results.csv").read_bytes()
    assert submit([tmp_path / "runs"], board).added == 0
    assert (board / "results.csv").read_bytes() == before


def test_foreign_operator_at_a_point_of_the_suite_is_welcome(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    data = at()
    config, _ = resolve("hyena", "recall", seqlen=64, n_test=1000, device="cpu")
    foreign = config.to_dict() | {
        "operator": "theirs", "operator_options": {"x": 1}, "sources": {"their-layers": "1.0"},
    }  # fmt: skip
    from mechbench.spec import Config

    data |= {"config": foreign, "cell_id": Config.from_dict(foreign).cell_id}
    save(data)
    assert submit([tmp_path / "runs"], tmp_path / "b", suite).added == 1


def test_one_refused_result_keeps_the_others_out_unless_asked(
    at: Make, save: Save, suite: Path, tmp_path: Path
) -> None:
    save(at())
    path = save(at("attention", 0.01))
    broken = save(at("attention", 0.8, seed=1))
    broken.write_text("{")
    done = submit([tmp_path / "runs"], tmp_path / "b", suite)
    assert done.added == 0
    assert len(done.refused) == 2
    assert any(f"{path}: at 64: accuracy 0.0100 is below chance" in line for line in done.refused)
    assert not (tmp_path / "b").exists()
    done = submit([tmp_path / "runs"], tmp_path / "b", suite, without_refused=True)
    assert (done.added, done.not_run) == (1, 3)


def test_newer_result_of_a_cell_counts(at: Make, save: Save, suite: Path, tmp_path: Path) -> None:
    data = at()
    submit([save(data)], tmp_path / "b", suite)
    newer = json.loads(json.dumps(at(accuracy=0.5)))
    newer["provenance"]["date"] = "2026-02-02T00:00:00Z"
    submit([save(newer)], tmp_path / "b", suite)
    assert [r.accuracy for r in read_rows(tmp_path / "b" / "results.csv") if r.accuracy] == [0.5]


def test_suite_must_be_named_the_first_time(at: Make, save: Save, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no suite\.toml: name the suite with --suite"):
        submit([save(at())], tmp_path / "b")
