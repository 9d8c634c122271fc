from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from cli.conftest import CommandLine, lines
from mechbench.cli import _fail
from mechbench.record.config import Config
from mechbench.record.results import write_json

FILES = ["accuracy_vs_seqlen.png", "accuracy_vs_seqlen.svg", "table.csv", "table.md"]


@pytest.fixture(scope="module")
def reports(mechbench_of_module: CommandLine, finished: Path) -> list[Path]:
    """Return two reports of the same stored results."""
    folder = mechbench_of_module.folder
    shutil.copytree(finished / "runs", folder / "runs")
    one, two = mechbench_of_module.together(("report",), ("report", "runs", "--out", "again"))
    for done, name in ((one, "report"), (two, "again")):
        assert (done.returncode, done.stderr) == (0, "")
        files = done.stdout.partition("\n\n")[0].splitlines()
        assert sorted(files) == [f"{name}/{file}" for file in FILES]
        assert done.stdout.endswith((folder / name / "table.md").read_text())
    return [folder / "report", folder / "again"]


@pytest.mark.parametrize("name", FILES)
def test_same_results_give_the_same_bytes(reports: list[Path], name: str) -> None:
    one, two = ((report / name).read_bytes() for report in reports)
    assert len(one) > 100
    assert one == two


def test_table_holds_the_accuracies_stored(reports: list[Path], finished: Path) -> None:
    (path,) = finished.rglob("result.json")
    stored = json.loads(path.read_text())
    with (reports[0] / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["eval_seqlen"]) for row in rows] == [4, 8, 16]
    accuracies = {int(row["eval_seqlen"]): float(row["accuracy"]) for row in rows}
    assert accuracies == {e["seqlen"]: e["accuracy"] for e in stored["evaluations"]}
    assert {row["operator"] for row in rows} == {"hyena"}


def test_a_leaderboard_stands_beside_ones_own_results(
    mechbench: CommandLine, finished: Path
) -> None:
    board = Path(__file__).resolve().parents[2] / "leaderboards" / "recall-vs-length"
    (path,) = finished.rglob("result.json")
    stored = json.loads(path.read_text())
    # As if it had been trained where those of the board were.
    config = Config.from_dict(
        stored["config"]
        | {"operator": "mine", "operator_options": {}, "seqlen": 128, "vocab_size": 30}
    )
    config = dataclasses.replace(config, eval_seqlens=(128,))
    (row,) = (e for e in stored["evaluations"] if e["seqlen"] == stored["config"]["seqlen"])
    data = stored | {"cell_id": config.cell_id, "config": config.to_dict()}
    (mechbench.folder / "mine").mkdir()
    write_json(mechbench.folder / "mine" / "result.json", data | {
        "evaluations": [row | {"seqlen": 128, "shortcuts": {}, "required_context": {}}],
    })  # fmt: skip
    done = mechbench("report", "mine", str(board))
    assert done.returncode == 0
    with (mechbench.folder / "report" / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["trained_seqlen"] == "128"]
    assert (
        len({row["label"] for row in rows} - {"mine"}) == len({r["label"] for r in rows}) - 1 == 12
    )
    assert {row["task"] for row in rows} == {"recall"}


def test_corrupt_result_is_named_and_left_out(mechbench: CommandLine, finished: Path) -> None:
    shutil.copytree(finished / "runs", mechbench.folder / "runs")
    damaged = mechbench.folder / "runs" / "damaged" / "result.json"
    damaged.parent.mkdir()
    damaged.write_text('{"status": "o')
    done = mechbench.works("report")
    (warning,) = lines(done.stderr)
    assert warning.startswith("mechbench: warning: skipped: damaged/result.json is corrupt: ")
    assert damaged.read_text() == '{"status": "o'


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "runs does not exist: expected a folder of results"),
        (("empty",), "no result.json or results.csv below empty"),
        (("damaged",), "no readable result: skipped: damaged/result.json is corrupt"),
        (("results", "--out", "file"), "cannot write to file: File exists"),
        (("results", "--out", "file/report"), "cannot write to file/report: Not a directory"),
    ],
)
def test_bad_arguments_are_one_line(
    mechbench: CommandLine, finished: Path, args: tuple[str, ...], message: str
) -> None:
    for name in ("empty", "damaged"):
        (mechbench.folder / name).mkdir()
    (mechbench.folder / "damaged" / "result.json").write_text("[")
    (mechbench.folder / "file").write_text("in the way")
    (mechbench.folder / "results").symlink_to(finished / "runs")
    assert mechbench.error("report", *args).startswith(message)
    assert (mechbench.folder / "file").read_text() == "in the way"


def test_an_error_is_one_visible_line_whatever_it_quotes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        _fail("a\n\x1b[2J\u202e" + 5000 * "x")
    (line,) = lines(capsys.readouterr().err)
    assert line.startswith("mechbench: error: a \\x1b[2J\\u202exxx")
    assert len(line) < 2100
