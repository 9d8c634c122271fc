"""scripts/ablate_schedules.py: tiny grids on a CPU, resumed, limited, and summed up."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest
import torch

import mechbench
from mechbench.training.evaluation import Score
from mechbench.training.loop import SOLVED

SCRIPT = Path(mechbench.__file__).parent.parent / "scripts" / "ablate_schedules.py"
TASK, STEP = "recall,seqlen=16,vocab_size=6", 64 * 18  # tokens
SMALL = [
    "--operator", "hyena", "--task", TASK, "--lr", "4e-3", "--seed", "0", "--budget", "12000",
    "--d-model", "16", "--validate-tokens", "3000", "--device", "cpu",
]  # fmt: skip
WSD = "wsd,first_tokens=3000,share=1.0"

Call = Callable[..., str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def call(script: dict[str, Any]) -> Call:
    def call(*arguments: str, code: int = 0) -> str:
        result = click.testing.CliRunner().invoke(script["main"], list(arguments))
        assert result.exit_code == code, result.output
        return result.output

    return call


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "new" / "rows.jsonl"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def schedules(*names: str) -> list[str]:
    return [text for name in names for text in ("--schedule", name)]


def without_clocks(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("seconds", "train_s")}


def test_every_schedule_trains_and_its_lines_say_how(call: Call, out: Path) -> None:
    names = ("cosine", "constant", "averaged,sharpness=4", WSD, "schedule-free,beta1=0.95")
    text = call(*SMALL, "--tune-seed", "-1", *schedules(*names), "--out", str(out))
    assert "all done" in text
    rows = rows_of(out)
    assert [row["schedule"] for row in rows] == list(names)
    for row in rows:
        assert (row["operator"], row["task"], row["seqlen"], row["vocab_size"]) == (
            "hyena", "recall", 16, 6,
        )  # fmt: skip
        assert (row["lr"], row["seed"], row["tuning"]) == (4e-3, 0, False)
        assert (row["tokens"], row["solved_tokens"], row["diverged"]) == (10 * STEP, None, False)
        assert row["device"] == "CPU"
    steps = [[tokens / STEP for tokens, *_ in row["validations"]] for row in rows]
    assert steps[0] == steps[1] == steps[2] == steps[4] == [3, 6, 9, 10]
    # A branch of 3 steps, to be validated after 2.4, 2.7 and 3 of them, and once a step at most.
    assert steps[3] == [3, 6, 7, 8, 10]
    assert (rows[3]["aside_tokens"], rows[3]["steps"]) == (5 * STEP, 5)
    found = {json.dumps([accuracy for _, accuracy, _ in row["validations"]]) for row in rows}
    assert len(found) >= 4  # they are not all the same run
    assert all(row["validations"][-1][1] > 1 / 6 for row in rows)


@pytest.mark.parametrize("name", ["constant", "averaged", WSD, "schedule-free"])
def test_a_run_is_the_prefix_of_a_longer_one(call: Call, out: Path, name: str) -> None:
    for budget in ("12000", "24000"):
        call(*SMALL, "--tune-seed", "-1", *schedules(name), "--budget", budget, "--out", str(out))
    short, long = (row["validations"] for row in rows_of(out))
    assert short[:-1] == long[: len(short) - 1]
    assert len(long) > len(short)


def test_trunk_is_the_constant_run_and_branches_stand_aside(
    call: Call, out: Path, device: str
) -> None:
    more = ["--budget", "40000", "--device", device, "--lr", "1e-2"]
    names = schedules("constant", "wsd,first_tokens=3000,growth=3,stalled_growth=3,share=0.5")
    call(*SMALL, *more, "--tune-seed", "-1", *names, "--out", str(out))
    constant, other = (row["validations"] for row in rows_of(out) if row["lr"] == 1e-2)
    trunk = [accuracy for _, accuracy, branch in other if not branch]
    assert trunk[:-1] == [accuracy for _, accuracy, _ in constant][: len(trunk) - 1]
    assert len(trunk) >= 5
    assert sum(branch for *_, branch in other) == 2 * 3


def test_a_budget_of_its_own_ends_a_cosine_earlier(call: Call, out: Path) -> None:
    names = schedules("cosine", "cosine,budget_tokens=6000", "cosine,budget_tokens=1e9")
    call(*SMALL, "--tune-seed", "-1", *names, "--out", str(out))
    whole, short, long = rows_of(out)
    assert [row["tokens"] // STEP for row in (whole, short, long)] == [10, 5, 10]
    accuracies = {
        str([accuracy for _, accuracy, _ in r["validations"]]) for r in (whole, short, long)
    }
    assert len(accuracies) == 3


def test_rates_are_chosen_on_other_seeds(call: Call, out: Path) -> None:
    arguments = [*SMALL, "--lr", "1e-9", "--tune-seed", "7", "--seed", "1", "--seed", "2"]
    call(*arguments, *schedules("constant"), "--out", str(out))
    told = [(row["seed"], row["lr"], row["tuning"]) for row in rows_of(out)]
    assert sorted(told[:2]) == [(7, 1e-9, True), (7, 4e-3, True)]
    assert told[2:] == [(0, 4e-3, False), (1, 4e-3, False), (2, 4e-3, False)]
    line = call("--summary", str(out)).splitlines()[2].split()
    assert line[:4] == ["constant", "0.004", "2", "3"]
    assert call(*arguments, "--seed", "7", "--out", str(out), code=2)


def test_the_same_command_goes_on_where_it_stopped(call: Call, out: Path) -> None:
    arguments = [*SMALL, "--tune-seed", "-1", *schedules("constant", "averaged"), "--out", str(out)]
    call(*arguments)
    first, second = rows_of(out)
    out.write_text(json.dumps(first) + "\n" + json.dumps(second)[:40])  # killed while it wrote
    assert "[1/1]" in call(*arguments)
    lines = out.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0]) == first
    assert without_clocks(json.loads(lines[2])) == without_clocks(second)
    assert "[" not in call(*arguments)
    assert len(out.read_text().splitlines()) == 3


def test_a_limit_ends_it_cleanly(call: Call, out: Path) -> None:
    arguments = [*SMALL, "--tune-seed", "-1", *schedules("constant"), "--out", str(out)]
    assert "not all done" in call(*arguments, "--stop-after", "0")
    assert not out.exists()
    # Not a cell that is solved before its limit.
    endless = ["recall,seqlen=256,vocab_size=200" if a == TASK else a for a in arguments]
    assert "not all done" in call(*endless, "--budget", "1e12", "--stop-after", "2")
    assert not out.exists()
    assert "all done" in call(*arguments)


def test_cells_are_the_same_in_several_processes(call: Call, out: Path) -> None:
    arguments = [*SMALL, "--tune-seed", "-1", *schedules("constant", "schedule-free")]
    call(*arguments, "--out", str(out))
    other = out.with_name("other.jsonl")
    subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--jobs", "2", "--out", str(other)],
        check=True, capture_output=True,
    )  # fmt: skip
    one, two = ({row["schedule"]: without_clocks(row) for row in rows_of(p)} for p in (out, other))
    assert one == two


@pytest.mark.parametrize(
    ("verdicts", "step"),
    [
        ([0, 1, 1], 7),  # twice in the branch
        ([0, 0, 0, 1, 1], None),  # at its end, and once on the trunk
        ([1, 1], 6),  # on the trunk, which no branch leaves after a first success
    ],
)
def test_solved_is_twice_in_a_row_on_the_trunk_or_in_one_branch(
    call: Call, out: Path, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
    verdicts: list[int], step: int | None,
) -> None:  # fmt: skip
    left = iter(verdicts)

    def evaluate(*_: object) -> Score:
        return Score(next(left), 1, 0, 1)

    monkeypatch.setattr(sys.modules["schedule_cell"], "evaluate", evaluate)
    call(*SMALL, "--tune-seed", "-1", *schedules(WSD), "--out", str(out))
    (found,) = rows_of(out)
    assert found["solved_tokens"] == (None if step is None else step * STEP)
    assert [accuracy for _, accuracy, _ in found["validations"]] == verdicts


def test_a_loss_that_is_not_finite_ends_the_cell(
    call: Call, out: Path, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients(model: Any, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        for p in model.parameters():
            p.grad = torch.full_like(p, math.nan)
        return torch.tensor(math.nan), torch.zeros(2, dtype=torch.int64)

    monkeypatch.setattr(sys.modules["schedule_cell"], "step_gradients", gradients)
    call(*SMALL, "--tune-seed", "-1", *schedules("constant"), "--out", str(out))
    (found,) = rows_of(out)
    assert (found["diverged"], found["solved_tokens"], found["validations"]) == (True, None, [])
    assert "1 diverged" in call("--summary", str(out))


def test_stages_of_the_curriculum_end_with_their_tokens(call: Call, out: Path) -> None:
    task = ["--task", "induction,seqlen=64,vocab_size=20"]
    more = ["--budget", "60000", "--stage-tokens", "9000", *schedules("constant")]
    call(*SMALL, *task, *more, "--tune-seed", "-1", "--out", str(out))
    whole, other = rows_of(out)
    assert (whole["task"], other["task"]) == ("recall", "induction")
    assert whole["stages"] == []
    ((seqlen, tokens, accuracy),) = other["stages"]
    assert (seqlen, tokens) == (32, 25 * 64 * 33)  # looked at every 25 steps
    assert 0 <= accuracy < 0.95
    assert other["validations"][-1][0] == other["tokens"] <= 60000


def test_an_error_is_a_line_and_is_tried_again(
    call: Call, script: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*SMALL, "--tune-seed", "-1", *schedules("constant"), "--out", str(out)]
    cell = sys.modules["schedule_cell"]

    def fail(*_: object) -> None:
        raise RuntimeError("no\nmemory")

    with monkeypatch.context() as patch:
        patch.setattr(cell, "train", fail)
        assert "not all done" in call(*arguments)
    assert rows_of(out)[0]["error"] == "RuntimeError: no memory"
    assert call("--summary", str(out)) == "no finished cells, 1 errors\n"
    assert "all done" in call(*arguments)
    assert "error" not in call("--summary", str(out))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (schedules("wdd"), "unknown schedule 'wdd'"),
        (schedules("wsd,shares=1"), "unknown option 'shares' of wsd"),
        (schedules("averaged,sharpness=x"), "sharpness is 'x': expected a number"),
        (["--operator", "conv,n_tap"], "'n_tap' in 'conv,n_tap': expected option=value"),
        (["--task", "recall,seqlen=x"], "seqlen"),
        (["--operator", "convv"], "convv"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    call: Call, out: Path, arguments: list[str], text: str
) -> None:
    assert text in call(*SMALL, *arguments, "--out", str(out), code=2)
    assert not out.exists()


def row(schedule: str, lr: float, seed: int, solved: float | None, **more: Any) -> dict[str, Any]:
    operator = more.pop("operator", "conv")
    cell = {"operator": operator, "task": TASK, "schedule": schedule, "lr": lr, "seed": seed}
    tokens = 1e8 if solved is None else solved
    base = {"solved_tokens": solved, "diverged": False, "tuning": False, "tokens": tokens}
    accuracy = 0.5 if solved is None else SOLVED
    return {"cell": cell, **cell, **base, "validations": [[tokens, accuracy]], **more}


def test_summary_ranks_by_share_solved_and_then_by_tokens(call: Call, out: Path) -> None:
    rows = [row("a", 1e-3, 9, 9e6, tuning=True), row("a", 2e-3, 9, 8e6, tuning=True)]
    rows += [row("a", 2e-3, seed, tokens) for seed, tokens in enumerate((4e6, 30e6, None))]
    rows += [row("b", 1e-3, seed, tokens) for seed, tokens in enumerate((6e6, 7e6, 8e6))]
    rows += [row("c", 1e-3, seed, tokens) for seed, tokens in enumerate((3e6, 7.5e6, 90e6))]
    rows += [row("c", 2e-3, 0, None), row("a", 1e-3, 0, None, operator="h3")]
    out.parent.mkdir()
    out.write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = [line.split() for line in call("--summary", str(out)).splitlines()]
    told = {line[0]: line[1:] for line in lines if line and line[0] in ("a", "b", "c")}
    assert lines[2] == ["a", "0.002", "2", "3", "33%", "33%", "67%", "30.00", "0.830"]
    assert lines[3] == ["b", "0.001", "1", "3", "0%", "100%", "100%", "7.00", "0.995"]
    assert lines[4] == ["c", "0.001*", "2", "3", "33%", "67%", "100%", "7.50", "0.995"]
    assert told["b"] == ["1.00", "3", "0%", "100%", "100%", "7.00"]
    assert told["c"] == ["2.00", "3", "33%", "67%", "100%", "7.50"]
    assert told["a"] == ["3.00", "3", "33%", "33%", "67%", "30.00"]
    assert "over 1 of 2 pairs" in call("--summary", str(out))


def test_cells_of_other_settings_are_not_pooled(script: dict[str, Any]) -> None:
    rows = [row("a", 1e-3, 0, tokens, dtype=dtype) for tokens, dtype in ((2e6, "x"), (3e6, "y"))]
    lines = script["table"](rows, (5.0,)).splitlines()
    assert [line for line in lines if " on " in line] == [
        f"conv on {TASK}, dtype=x", f"conv on {TASK}, dtype=y",
    ]  # fmt: skip
    assert [line.split()[3] for line in lines if line.startswith("  a")][:2] == ["1", "1"]


def test_schedules_alike_share_their_rank(script: dict[str, Any]) -> None:
    rows = [row(name, 1e-3, 0, None) for name in ("a", "b")]
    lines = script["table"](rows, (5.0,)).splitlines()
    assert [line.split()[1] for line in lines[-2:]] == ["1.50", "1.50"]
    assert [line.split()[-1] for line in lines[-2:]] == ["-", "-"]


def test_the_best_rate_solves_then_is_soon_then_comes_farthest(script: dict[str, Any]) -> None:
    best = script["best_lr"]
    far = row("a", 4e-3, 0, None, validations=[[1, 0.9]])
    assert best([row("a", 1e-3, 0, None), far, row("a", 2e-3, 0, None)]) == 4e-3
    assert best([row("a", 1e-3, 0, 5e7), far, row("a", 2e-3, 0, 4e7)]) == 2e-3
    assert best([row("a", 2e-3, 0, None), row("a", 1e-3, 0, None)]) == 1e-3
    assert math.isclose(best([row("a", 1e-3, 0, None, validations=[], diverged=True), far]), 4e-3)
