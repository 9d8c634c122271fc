"""scripts/judge_again.py, on made-up runs."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

import mechbench
from mechbench.record.outcome import CellOutcome

SCRIPT = Path(mechbench.__file__).parent.parent / "scripts" / "judge_again.py"
EVERY = 1_000_000


def metrics(path: Path, dense: list[float], scored: float = 0.25) -> None:
    lines = ["step,tokens,loss,train_accuracy,validation_accuracy,validation_dense_accuracy"]
    lines += [f"{i},{i * EVERY},1.0,0.5,{scored},{d}" for i, d in enumerate(dense, 1)]
    path.with_name("metrics.csv").write_text("\n".join(lines) + "\n")


def test_only_what_is_not_solved_is_judged_by_the_rule_in_force(
    store: Callable[..., Path], tmp_path: Path
) -> None:
    command = runpy.run_path(str(SCRIPT))["command"]
    outcome = CellOutcome(
        "censored", 60 * EVERY, 0.995, 0.25, 512, 60, 0.0, 0.0, 0.0, "flat", 0.0
    ).to_dict()
    kept, changed = (
        store(folder="runs", seed=seed, train_tokens=60 * EVERY, outcome=outcome) for seed in (0, 1)
    )
    metrics(kept, [0.25] * 60)
    metrics(changed, [0.25 + i / 100 for i in range(60)])
    metrics(store(folder="runs", seed=2, solved=True), [1.0] * 2)
    before = kept.read_bytes()
    done = CliRunner().invoke(command, [str(tmp_path / "runs")])
    assert done.output == f"{changed.parent.name}: flat at first, rising now\n"
    found = json.loads(changed.read_text())
    assert (found["outcome"]["trend"], found["outcome"]["tokens"]) == ("rising", 60 * EVERY)
    assert kept.read_bytes() == before
    assert CliRunner().invoke(command, [str(tmp_path / "runs")]).output == ""
    metrics(changed, [1.0] * 60, scored=1.0)
    done = CliRunner().invoke(command, [str(tmp_path / "runs")])
    assert (done.exit_code, "is solved, and it is censored" in done.output) == (1, True)
