from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mechbench.cli.leaderboard import command
from mechbench.errors import ConfigError


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
