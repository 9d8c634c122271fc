"""Files damaged at random, as scripts/fuzz_files.py does it by the thousand."""

from __future__ import annotations

import random
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import mechbench
from mechbench.errors import MechbenchError
from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.frame import load_results
from mechbench.report.table import to_csv, to_markdown
from mechbench.report.watch import picture, read_runs

FUZZ = Path(mechbench.__file__).parent.parent / "scripts" / "fuzz_files.py"
METRICS = "step,tokens,seqlen,loss,train_accuracy,validation_accuracy\n5,100,64,2.5,0.1,0.5\n"


def report(root: Path) -> None:
    rows, warnings = collect([root])
    sections = aggregate(rows)
    to_markdown(sections, warnings), to_csv(sections)


def test_no_damage_is_a_traceback(store: Callable[..., Path], tmp_path: Path) -> None:
    damage = runpy.run_path(str(FUZZ))["damage"]
    readers = (report, lambda root: picture(read_runs(root)[0]), load_results)
    good = store({64: 0.9, 128: 0.5}).parent
    (good / "config.json").write_text(
        '{"operator": "hyena", "task": "recall", "seqlen": 64, "seed": 0, "budget_tokens": 9}'
    )
    (good / "metrics.csv").write_text(METRICS)
    refused = 0
    for seed in range(60):
        chance = random.Random(seed)
        folder = tmp_path / "damaged" / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        names = ("result.json", "result.json", "config.json", "metrics.csv")
        damage(folder / chance.choice(names), chance)
        for read in readers:
            try:
                read(folder)
            except MechbenchError:
                refused += 1
    assert refused > 40
