from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mechbench.cli.watch import command
from mechbench.errors import ResultError


def test_one_look(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text(
        '{"operator": "hyena", "task": "recall", "seqlen": 64, "seed": 0, "budget_tokens": 9}'
    )
    got = CliRunner().invoke(command, [str(tmp_path), "--once"])
    assert got.exit_code == 0
    assert "hyena recall 64 seed 0" in got.output


def test_absent_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="does not exist"):
        CliRunner().invoke(command, [str(tmp_path / "no"), "--once"], catch_exceptions=False)


def test_a_damaged_run_is_a_warning_and_nothing_else_an_error(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(
            '{"operator": "hyena", "task": "recall", "seqlen": 64, "seed": 0, "budget_tokens": 9}'
        )
    (tmp_path / "bad" / "result.json").write_text("[" * 10_000)
    got = CliRunner().invoke(command, [str(tmp_path), "--once"])
    assert got.exit_code == 0
    assert "hyena recall 64 seed 0" in got.stdout
    assert got.stderr.startswith("mechbench: warning: skipped: bad/result.json is corrupt: ")
