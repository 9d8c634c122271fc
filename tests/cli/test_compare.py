from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mechbench.cli.compare import command
from mechbench.errors import ConfigError, PluginError

pytestmark = pytest.mark.usefixtures("clean_registry")
SUITE = """title = "T"
operators = ["attention"]
seeds = [0, 1]
[settings]
seqlen = 16
budget_sequences = 64
[[tasks]]
name = "recall"
[[tasks]]
name = "induction"
"""
PLUGIN = """import mechbench
from torch import nn


@mechbench.register_operator("mine")
class Mine(nn.Module):
    def __init__(self, d_model, max_seqlen):
        super().__init__()
        self.inner = nn.Linear(d_model, d_model)

    def forward(self, u):
        return self.inner(u) * u.cummax(1).values


@mechbench.register_operator("ahead")
class Ahead(nn.Module):
    def __init__(self, d_model, max_seqlen):
        super().__init__()
        self.inner = nn.Linear(d_model, d_model)

    def forward(self, u):
        return self.inner(u).mean(1, keepdim=True) + u
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "tiny.toml").write_text(SUITE)
    (tmp_path / "mine.py").write_text(PLUGIN)
    return str(tmp_path / "mine.py"), str(tmp_path / "tiny.toml")


def test_a_plugin_is_checked_trained_and_set_beside_the_known(
    files: tuple[str, str], tmp_path: Path
) -> None:
    args = [files[0], "--suite", files[1], "--device", "cpu"]
    args += ["--out", str(tmp_path / "runs"), "--card", str(tmp_path / "card")]
    first = subprocess.run(
        [sys.executable, "-m", "mechbench", "compare", *args], capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    assert "mechbench: warning: ahead is not sound: causal" in first.stderr
    assert "mine: a sound operator" in first.stdout
    assert "tiny: 4 cells" in first.stdout
    assert "| recall at 16 | 0 of 2 | > " in first.stdout
    assert "nothing is ranked" in first.stdout
    again = CliRunner().invoke(command, [*args, "--dry-run"])
    assert again.exit_code == 0
    assert "done          4" in again.output  # nothing would be trained twice
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    assert card["own"] == ["mine"]
    assert [*card["unsound"]] == ["ahead"]
    assert [task["name"] for task in card["tasks"]] == ["recall at 16", "induction at 16"]
    assert (tmp_path / "card" / "card.png").read_bytes().startswith(b"\x89PNG")


def test_dry_run_shows_the_plan_alone(files: tuple[str, str], tmp_path: Path) -> None:
    args = ["h3", "--suite", files[1], "--tasks", "induction", "--dry-run", "--device", "cpu"]
    got = CliRunner().invoke(command, [*args, "--out", str(tmp_path / "runs")])
    assert got.exit_code == 0
    assert "tiny: 2 cells" in got.output
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_compared_is_refused_first(files: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import mechbench\n@mechbench.register_filter('flat')\nclass Flat: ...\n"
    )
    got = CliRunner().invoke(command, [])
    assert got.exit_code == 2
    assert "expected a plugin file or the name of an operator" in got.output
    for args, error, text in (
        (["hyenna"], ConfigError, "unknown operator 'hyenna': did you mean 'hyena'"),
        ([str(tmp_path / "task.py")], PluginError, "registers no operator"),
        ([str(tmp_path / "gone.py")], PluginError, "gone.py cannot be read"),
        (["h3", "--suite", files[1], "--tasks", "recal"], ConfigError, "did you mean 'recall'"),
        (["h3", "--suite", files[1], "--card", files[0]], ConfigError, "cannot write to"),
    ):
        with pytest.raises(error, match=text):
            CliRunner().invoke(command, args, catch_exceptions=False)
