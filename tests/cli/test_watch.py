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
