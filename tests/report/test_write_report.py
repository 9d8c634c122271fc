from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mechbench.cli.report import command
from mechbench.errors import ResultError
from mechbench.record.config import TUNING_SEED
from mechbench.report import write_report

Store = Callable[..., Path]
FILES = ["table.md", "table.csv", "accuracy_vs_seqlen.png", "accuracy_vs_seqlen.svg"]


def fill(store: Store) -> None:
    for operator in ("hyena", "attention", "h3"):
        for seqlen in (64, 128):
            for seed in (0, 1):
                store({seqlen: 0.9 - 0.1 * seed}, operator=operator, seqlen=seqlen, seed=seed)
    store({}, operator="h3", seqlen=256, status="diverged")


def test_same_results_same_bytes_wherever_they_lie(store: Store, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "other"
    shutil.copytree(tmp_path / "runs", moved)
    first = write_report([tmp_path / "runs"], tmp_path / "a")
    second = write_report([moved], tmp_path / "b")
    assert [path.name for path in first.files] == FILES
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert first.warnings == second.warnings == ()
    assert str(tmp_path) not in first.markdown


@pytest.mark.parametrize("text", ["{", '{"schema_version": 1}', "[]", '{"schema_version": 9}'])
def test_corrupt_file_is_skipped_and_named(store: Store, tmp_path: Path, text: str) -> None:
    store()
    broken = tmp_path / "runs" / "beef" / "result.json"
    broken.parent.mkdir()
    broken.write_text(text)
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("skipped: beef/result.json ")
    assert f"- {report.warnings[0]}" in report.markdown
    assert broken.read_text() == text


def test_damaged_evaluation_is_skipped(store: Store, tmp_path: Path) -> None:
    store()
    damaged = store({64: 0.9}, seed=1)
    damaged.write_text(damaged.read_text().replace('"ci_low"', '"ci_lov"'))
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "ci_low" in report.warnings[0]
    assert "n=1" in report.markdown


def test_nothing_readable_raises(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ResultError, match="no readable result"):
        write_report([tmp_path], tmp_path / "out")
    with pytest.raises(ResultError, match="does not exist"):
        write_report([tmp_path / "absent"], tmp_path / "out")


def test_command_prints_files_and_table(store: Store, tmp_path: Path) -> None:
    fill(store)
    out = tmp_path / "out"
    done = CliRunner().invoke(command, [str(tmp_path / "runs"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:4] == [str(out / name) for name in FILES]
    assert done.stdout.endswith((out / "table.md").read_text())


def test_import_is_light() -> None:
    code = (
        "import sys, mechbench.report, mechbench.cli.report\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rates_chosen_by_cells_of_their_own_stand_with_what_that_took(
    store: Store, tmp_path: Path
) -> None:
    for operator, seqlen, best in (("hyena", 64, 4e-3), ("hyena", 128, 2e-3), ("h3", 64, 2e-3)):
        for lr in (1e-3, 2e-3, 4e-3):
            validated = {"validation_accuracy": 0.9 if lr == best else 0.1}
            settings = {"operator": operator, "seqlen": seqlen, "lr": lr}
            store({seqlen: 0.5}, seed=TUNING_SEED, train_tokens=900, **settings, **validated)
        for seed in (0, 1):
            store({seqlen: 0.8}, **{**settings, "lr": best}, seed=seed)
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "| hyena | 80.0 [" in report.markdown  # one line for both lengths, n of those reported
    same = next(line for line in report.markdown.splitlines() if line.startswith("The same"))
    assert "; trials 3; tokens of trials 2,700." in same
    text = report.markdown.splitlines()
    (head,) = (i for i, line in enumerate(text) if line.endswith("| lr |"))
    chosen = [line.strip("| ").split(" | ") for line in text[head + 2 : head + 5]]
    assert {(*cells[:2], cells[-1]) for cells in chosen} == {
        ("hyena", "64", "0.004 (edge)"), ("hyena", "128", "0.002"), ("h3", "64", "0.002"),
    }  # fmt: skip
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["tuning_trials"], row["n_seeds"]) for row in rows} == {("3", "2")}
    assert {row["label"] for row in rows} == {"hyena", "h3"}


def test_a_search_that_has_nothing_to_report_says_so(store: Store, tmp_path: Path) -> None:
    store(seed=TUNING_SEED)
    with pytest.raises(ResultError, match="nothing to report: all 1 results choose learning rates"):
        write_report([tmp_path / "runs"], tmp_path / "out")


def test_without_a_search_nothing_is_said_of_one(store: Store, tmp_path: Path) -> None:
    fill(store)
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "trials" not in report.markdown
    assert "tuning" not in (tmp_path / "out" / "table.csv").read_text()
