"""scripts/carry_on.py, on a sweep of seconds."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from click.testing import CliRunner

import mechbench
from mechbench.plan.suite_file import read_suite
from mechbench.sweep.execute import look

SCRIPT = Path(mechbench.__file__).parent.parent / "scripts" / "carry_on.py"
SUITE = """
title = "t"
question = "q"
tasks = ["recall"]
operators = ["s4d"]
seeds = [0, 1]
lrs = [1e-3, 2e-3]

[settings]
vocab_size = 30
seqlen = 32
d_model = 8
budget_tokens = 20_000
n_test = 16
"""


def test_drawn_cells_go_on_and_the_first_results_stay(tmp_path: Path) -> None:
    path, runs, long = tmp_path / "tiny.toml", tmp_path / "runs", tmp_path / "long"
    path.write_text(SUITE)
    while todo := look(read_suite(path), runs, device="cpu").plan.todo:
        for cell in todo:
            mechbench.run(**cell.call, device="cpu", out=runs, quiet=True)
    asked = f"{runs} {long} --suite {path} --number 1 --times 3 --device cpu"
    done = CliRunner().invoke(runpy.run_path(str(SCRIPT))["command"], asked.split())
    assert done.exit_code == 0, done.output
    (drawn,) = long.iterdir()
    before, after = (
        json.loads((folder / drawn.name / "result.json").read_text()) for folder in (runs, long)
    )
    assert before["config"]["budget_tokens"] == 20_000
    assert after["config"]["budget_tokens"] == 60_000
    assert before["train_tokens"] <= 20_000 < after["train_tokens"] <= 60_000
    assert before["config"]["seed"] in (0, 1)
