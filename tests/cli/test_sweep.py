from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mechbench.cli.sweep import command
from mechbench.errors import ConfigError

SUITE = """title = "T"
tasks = ["recall"]
operators = ["attention"]
seeds = [0, 1]
[settings]
seqlen = 16
budget_sequences = 64
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


def test_dry_run_shows_the_plan_and_runs_nothing(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    args = [str(suite), "--out", str(out), "--dry-run", "--device", "cpu"]
    got = CliRunner().invoke(command, args)
    assert got.exit_code == 0
    assert f"{suite}: 2 cells" in got.output
    assert "estimated cost" in got.output
    assert not out.exists()


def test_lanes_count_as_workers_and_are_for_this_machine(suite: Path) -> None:
    args = [str(suite), "--dry-run", "--device", "cpu", "--jobs", "2", "--lanes", "3"]
    got = CliRunner().invoke(command, args)
    assert "with 6 workers" in got.output
    got = CliRunner().invoke(command, [*args, "--executor", "ray"])
    assert got.exit_code == 2
    assert "--lanes goes with --executor local" in got.output


def test_mistake_in_a_suite_is_raised_before_torch_is_loaded(suite: Path) -> None:
    suite.write_text(SUITE.replace("seeds", "seedz"))
    with pytest.raises(ConfigError, match=r"mine.toml:4: seedz: unknown key: did you mean 'seeds'"):
        CliRunner().invoke(command, [str(suite)], catch_exceptions=False)
    code = (
        "import sys\nfrom mechbench.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", str(suite)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
