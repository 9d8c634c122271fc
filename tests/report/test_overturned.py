"""scripts/overturned.py, on made-up runs."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click.testing
import pytest

import mechbench
from mechbench.record.outcome import CellOutcome
from mechbench.record.results import wilson_interval

SCRIPT = Path(mechbench.__file__).parent.parent / "scripts" / "overturned.py"
Store = Callable[..., Path]
EVERY = 1_000_000  # tokens between validations: 60 are more than the rule asks for
STILL, CLIMBING = [0.25] * 60, [0.25 + 0.01 * i for i in range(60)]


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Callable[..., Any]:
    module = runpy.run_path(str(SCRIPT))

    def invoke(*arguments: str) -> click.testing.Result:
        folders = [str(tmp_path / "short"), str(tmp_path / "long")]
        return click.testing.CliRunner().invoke(module["command"], [*folders, *arguments])

    return invoke


def metrics(path: Path, accuracies: Sequence[float], dense: Sequence[float] = ()) -> None:
    lines = ["step,tokens,loss,train_accuracy,validation_accuracy,validation_dense_accuracy"]
    both = zip(accuracies, dense or accuracies, strict=True)
    lines += [f"{i},{i * EVERY},1.0,0.5,{a},{d}" for i, (a, d) in enumerate(both, 1)]
    path.with_name("metrics.csv").write_text("\n".join(lines) + "\n")


def cell(
    store: Store, seed: int, accuracies: Sequence[float], later: str | None,
    dense: Sequence[float] = (),
) -> None:  # fmt: skip
    """Store a short run and, if told what became of it, a long one."""
    tokens = EVERY * len(accuracies)
    short = {"folder": "short", "seed": seed, "budget_tokens": tokens, "train_tokens": tokens}
    metrics(store(**short), accuracies, dense)
    if later is None:
        return
    spent = {"solved": 3 * tokens, "censored": 10 * tokens, "early": 5 * tokens}[later]
    store(
        folder="long", seed=seed, budget_tokens=10 * tokens, train_tokens=spent,
        solved=later == "solved",
    )  # fmt: skip


def test_share_of_the_flat_that_are_solved(
    run: Callable[..., Any], store: Store, tmp_path: Path
) -> None:
    for seed in range(6):
        cell(store, seed, STILL, "solved" if seed < 2 else "censored")
    for seed in range(6, 8):
        cell(store, seed, CLIMBING, "solved")
    cell(store, 8, STILL, "solved", dense=CLIMBING)
    cell(store, 9, STILL, None)
    cell(store, 10, STILL, "early")
    cell(store, 11, [1.0] * 60, "solved")
    cell(store, 12, [0.3] * 5, "censored")
    done = run("--json", str(tmp_path / "told.json"))
    assert done.exit_code == 1  # 2 of 6 are more than 5 percent
    low, high = wilson_interval(2, 6)
    interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["left_out"] == {
        "solved at first": 1, "failed at first": 0, "without metrics": 0, "not in LONG": 1,
        "not followed": 1,
    }  # fmt: skip
    first = told["rules"][0]
    assert (first["flat"], first["rising"], first["unclear"]) == ([2, 6], [3, 3], [0, 1])
    assert f"flat and then solved: 2 of 6: 33.3 {interval} percent" in done.output
    assert len(told["rules"]) == 2 * 3 * 3 * 3 * 3
    alone = [r["flat"] for r in told["rules"] if r["rule"]["gain"] == math.inf]
    assert [3, 7] in alone


def test_a_long_run_stands_for_its_beginning(
    run: Callable[..., Any], store: Store, tmp_path: Path
) -> None:
    for seed in range(4):
        path = store(folder="long", seed=seed, train_tokens=600 * EVERY, solved=seed == 0)
        end = [1.0, 1.0] if seed == 0 else [0.25, 0.25]
        metrics(path, [0.25] * 598 + end)
    (tmp_path / "short").symlink_to(tmp_path / "long")
    done = run("--at", str(60 * EVERY))
    assert "4 cells judged" in done.output
    assert "flat and then solved: 1 of 4" in done.output


def test_stored_marks_count(run: Callable[..., Any], store: Store) -> None:
    outcome = CellOutcome("solved", 2000, 0.2, 0.25, 512, 2)
    path = store(folder="short", solved=True, train_tokens=60_000, outcome=outcome.to_dict())
    metrics(path, STILL)
    store(folder="long", solved=True)
    done = run()
    assert '"solved at first": 1' in done.output
    assert (done.exit_code, "none is flat" in done.output) == (0, True)


def test_a_folder_that_is_not_there_is_told_in_one_line(run: Callable[..., Any]) -> None:
    done = run()
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1
