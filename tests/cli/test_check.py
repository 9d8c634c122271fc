from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.conftest import call

pytestmark = pytest.mark.usefixtures("clean_registry")
AHEAD = """import mechbench
import torch
from torch import nn

@mechbench.register_operator("ahead")
class Ahead(nn.Module):
    def __init__(self, d_model, max_seqlen, *, share: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))
        self.share = share

    def forward(self, u):
        return self.scale * (u + self.share * u.mean(1, keepdim=True))
"""


def test_sound_operator_gives_a_page_a_file_and_exit_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = call(monkeypatch, "check", "--operator", "hyena", "--seqlen", "16", "--d-model", "8")
    out = capsys.readouterr().out
    assert code == 0
    assert "PASS: a sound operator" in out
    assert "L^0.00" in out
    assert json.loads((tmp_path / "report" / "check.json").read_text())["sound"] is True


def test_fault_of_a_plugin_is_exit_code_1_and_goes_with_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plugin.py").write_text(AHEAD)
    common = ["--operator", "ahead", "--plugin", str(tmp_path / "plugin.py"), "--seqlen", "16"]
    common += ["--d-model", "8", "--out", str(tmp_path / "found")]
    assert call(monkeypatch, "check", *common) == 1
    out = capsys.readouterr().out
    assert "  FAIL  causal by value" in out
    assert out.split("\n")[-3] == "FAIL: causal by value, causal by gradient, causal once trained"
    data = json.loads((tmp_path / "found" / "check.json").read_text())
    assert data["sound"] is False
    assert call(monkeypatch, "check", *common, "--option", "share=0") == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--operator", "hyna"], "unknown operator 'hyna': did you mean 'hyena'"),
        (["--operator", "hyena", "--option", "ordre=2"], "did you mean 'order'"),
        (["--operator", "hyena", "--device", "tpu"], "unknown device 'tpu'"),
        (["--operator", "hyena", "--seqlen", "1"], "seqlen is 1: expected at least 2"),
        ([], "--operator"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    args: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "check", *args) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_wrong_operator_and_device_are_said_without_torch() -> None:
    code = (
        "import sys; from mechbench.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert stop.code == 2\n"
        "assert 'torch' not in sys.modules"
    )
    for args in (["--operator", "hyna"], ["--operator", "hyena", "--device", "tpu"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "check", *args],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ.copy(),
        )
        assert done.returncode == 0, done.stderr
