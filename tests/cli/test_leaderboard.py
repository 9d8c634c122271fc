from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.conftest import call
from mechbench.cli.leaderboard import command
from mechbench.errors import ConfigError
from mechbench.leaderboard.submit import Submission


def test_alone_it_prints_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "leaderboard") == 0
    alone = capsys.readouterr()
    assert call(monkeypatch, "leaderboard", "--help") == 0
    assert capsys.readouterr() == alone
    assert "\nCommands:\n" in alone.out


def test_leaderboard_must_be_named() -> None:
    got = CliRunner().invoke(command, ["submit", "runs"])
    assert got.exit_code == click.UsageError.exit_code
    assert "--suite NAME or --to FOLDER" in got.output


def test_absent_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        CliRunner().invoke(command, ["build", str(tmp_path / "no")], catch_exceptions=False)


def test_refused_results_are_listed_and_end_with_code_2(tmp_path: Path) -> None:
    suite = tmp_path / "s.toml"
    suite.write_text('title = "T"\ntasks = ["recall"]\noperators = ["attention"]\n')
    (tmp_path / "result.json").write_text("{}")
    args = ["submit", str(tmp_path / "result.json"), "--suite", str(suite)]
    got = CliRunner().invoke(command, [*args, "--to", str(tmp_path / "b")])
    assert got.exit_code == 2
    assert "refused: " in got.output
    assert not (tmp_path / "b").exists()


def test_one_damaged_board_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(__file__).parents[2] / "leaderboards" / "smoke"
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        shutil.copy(source / "results.csv", tmp_path / name)
    damaged = tmp_path / "b" / "results.csv"
    damaged.write_text(damaged.read_text().replace("budget", "<b>\n", 1))
    monkeypatch.setattr("mechbench.leaderboard.build.draw", lambda sections, folder: [])
    monkeypatch.setattr("mechbench.leaderboard.page.missing_packages", lambda: ["plotly"])
    got = CliRunner().invoke(command, ["build", str(tmp_path)])
    assert got.exit_code == 2
    (line,) = [line for line in got.stderr.splitlines() if "is not built" in line]
    assert line.startswith(f"mechbench: {tmp_path / 'b'} is not built: {damaged}:")
    assert (tmp_path / "a" / "table.md").exists()
    assert (tmp_path / "c" / "table.md").exists()
    assert not (tmp_path / "b" / "table.md").exists()


def test_what_is_taken_on_trust_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Submission(1, 0, 0, (), 0)
    monkeypatch.setattr("mechbench.leaderboard.submit.submit", lambda *_, **__: done)
    got = CliRunner().invoke(command, ["submit", "runs", "--to", str(tmp_path)])
    last = got.stdout.splitlines()[-1]
    assert last.startswith("that the accuracies were measured as stated is taken on trust; ")
    assert f"mechbench leaderboard verify {tmp_path}" in last
