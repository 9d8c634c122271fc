"""scripts/ablate_step_tokens.py: two cells of seconds, resumed and summed up."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

import mechbench

SCRIPT = Path(mechbench.__file__).parent.parent / "scripts" / "ablate_step_tokens.py"


def test_cells_differ_in_their_last_stage_and_are_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(SCRIPT))["main"]

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    asked = [
        "--operator", "attention", "--seqlen", "130", "--step-tokens", "520", "--step-tokens",
        "2080", "--vocab-size", "8", "--budget", "20000", "--device", "cpu",
        "--validate-tokens", "8192",
    ]  # fmt: skip
    assert run(*asked).count("tokens\n") == 2
    assert run(*asked) == ""
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [row["curriculum"][-1] for row in rows] == [[130, 4], [130, 16]]
    assert all(row["provenance"]["torch"] and row["tokens"] <= 20_000 for row in rows)
    table = run("--summary", "steps.jsonl").splitlines()
    assert len(table) == 4
    assert [line.split(" | ")[4] for line in table[2:]] == ["520", "2080"]
