"""A run that is carried on by a larger budget, against one that never stopped."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechbench.errors import ConfigError, OperatorError
from mechbench.record.config import SCHEDULES
from mechbench.record.results import Result, read_result
from mechbench.training import loop, reuse, train_cell
from mechbench.training.branches import StableDecay
from mechbench.training.cell import Interrupted
from mechbench.training.evaluation import Score
from training.conftest import FILES, B, L, Operator, Run, fall_short, outcome, rows

pytestmark = pytest.mark.usefixtures("clean_registry")
STEP = B * (L + 2)


def weights(result: Result) -> list[torch.Tensor]:
    """Return all that a checkpoint holds of model, optimizer and schedule."""
    data = torch.load(result.path.with_name("checkpoint.pt"), weights_only=True)
    found: list[torch.Tensor] = []

    def gather(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict | list | tuple):
            for held in value.values() if isinstance(value, dict) else value:
                gather(held)

    gather([data["model"], data["optimizer"], data["schedule"]])
    return found


def check_same(one: Result, other: Result) -> None:
    assert outcome(one) == outcome(other)
    pairs = zip(weights(one), weights(other), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_is_carried_on_is_one_that_never_stopped(schedule: str, run: Run) -> None:
    whole = run("attention", "whole", budget_tokens=43 * STEP, schedule=schedule)
    for steps in (7, 20, 33, 43):
        part = run("attention", budget_tokens=steps * STEP, schedule=schedule)
        assert (part.steps, part.train_tokens) == (steps, steps * STEP)
        assert part.config["budget_tokens"] == steps * STEP
        assert rows(part.path.parent) == rows(whole.path.parent)[: steps // 10]
        alone = run("attention", f"alone {steps}", budget_tokens=steps * STEP, schedule=schedule)
        check_same(part, alone)
    check_same(part, whole)
    assert sorted(p.name for p in part.path.parent.iterdir() if p.name != ".lock") == FILES


@given(
    leaps=st.lists(st.integers(1, 39), max_size=2),
    cuts=st.lists(st.integers(1, 39), max_size=2),
)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_leaps_and_interruptions_anywhere_change_nothing(
    mine: Operator, run: Run, leaps: list[int], cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mine.once(0, lambda: None)
        whole = run(out=Path(folder) / "whole", budget_tokens=40 * STEP)
        for steps in [*sorted(leaps), 40]:
            before: Result | None = None
            for cut in cuts:
                mine.once(cut, lambda: os.kill(os.getpid(), signal.SIGTERM))
                try:
                    found = run(out=Path(folder) / "cut", budget_tokens=steps * STEP)
                except Interrupted:
                    if before is not None:  # the old result is there until the new one is
                        assert read_result(before.path).data == before.data
                    continue
                before = found
            mine.once(0, lambda: None)
            found = run(out=Path(folder) / "cut", budget_tokens=steps * STEP)
            assert found.steps == steps
        check_same(found, whole)


def test_validations_at_the_end_of_a_budget_are_no_part_of_a_streak(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a budget is validated, and is neither a row nor the second good one of two."""
    monkeypatch.setattr("mechbench.training.loop.SOLVED", 0.0)  # every validation is good
    first = run("attention", budget_tokens=15 * STEP)
    assert (first.solved, first.stop, first.validation_accuracy is not None) == (False, "budget", 1)
    assert [row[0] for row in rows(first.path.parent)] == ["10"]
    second = run("attention", budget_tokens=40 * STEP)
    assert (second.solved, second.steps) == (True, 20)
    check_same(second, run("attention", "whole", budget_tokens=40 * STEP))


def test_a_smaller_or_equal_budget_reads_the_result_and_says_how_far_it_went(
    mine: Operator, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(budget_tokens=20 * STEP)
    passes, written = mine.passes, first.path.stat().st_mtime_ns
    assert run(budget_tokens=20 * STEP) == first
    assert capsys.readouterr().err == ""
    assert run(budget_tokens=12 * STEP) == first
    (line,) = capsys.readouterr().err.splitlines()
    assert f"was trained on {20 * STEP} tokens, beyond the budget of {12 * STEP}" in line
    assert (mine.passes, first.path.stat().st_mtime_ns) == (passes, written)
    run(budget_tokens=20 * STEP, quiet=False)
    assert f"trained on {20 * STEP} tokens with a budget of {20 * STEP}" in capsys.readouterr().err


def test_a_solved_run_is_not_carried_on_and_answers_for_the_larger_budget(
    mine: Operator, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechbench.training.loop.SOLVED", 0.0)
    first, passes = run(), mine.passes
    assert (first.solved, passes) == (True, 20)
    again = run(budget_tokens=50 * STEP)
    assert mine.passes == passes
    assert again.data == read_result(first.path).data
    check_same(again, run(folder="whole", budget_tokens=50 * STEP))
    assert run(budget_tokens=25 * STEP).config["budget_tokens"] == 50 * STEP


def test_a_diverged_run_is_not_carried_on(mine: Operator, run: Run) -> None:
    mine.hook = lambda step, u: float("inf") if step >= 13 else None
    first, passes = run(), mine.passes
    again = run(budget_tokens=50 * STEP)
    assert (again.status, again.steps, mine.passes) == ("diverged", 12, passes)
    assert again.config == {**first.config, "budget_tokens": 50 * STEP}


@pytest.mark.parametrize("at", ["_score", "_finish"])
def test_killed_between_checkpoint_and_result_the_old_result_is_read_and_the_next_call_goes_on(
    at: str, mine: Operator, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(folder="whole", budget_tokens=40 * STEP)
    first = run(budget_tokens=15 * STEP)
    real = getattr(train_cell, at)

    def die(*args: object, **more: object) -> None:
        raise SystemExit(137)

    monkeypatch.setattr(train_cell, at, die)
    with pytest.raises(SystemExit):
        run(budget_tokens=40 * STEP)
    assert read_result(first.path).data == first.data
    monkeypatch.setattr(train_cell, at, real)
    mine.once(0, lambda: None)
    assert run(budget_tokens=15 * STEP).data == first.data
    check_same(run(budget_tokens=40 * STEP), whole)
    assert mine.passes == 0  # nothing was trained again


def test_without_its_checkpoint_a_run_starts_over_to_the_same(mine: Operator, run: Run) -> None:
    whole = run(folder="whole", budget_tokens=40 * STEP)
    run(budget_tokens=15 * STEP).path.with_name("checkpoint.pt").unlink()
    mine.once(0, lambda: None)
    check_same(run(budget_tokens=40 * STEP), whole)
    assert mine.passes == 40


def test_what_stands_beyond_the_budget_is_scored_as_it_is(
    mine: Operator, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.once(23, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        run(budget_tokens=40 * STEP)
    mine.once(0, lambda: None)
    found = run(budget_tokens=15 * STEP)
    assert (mine.passes, found.steps) == (0, 23)
    assert f"stands at {23 * STEP} tokens already, beyond" in capsys.readouterr().err
    check_same(found, run(folder="alone", budget_tokens=23 * STEP))


@pytest.mark.parametrize("failure", ["error", "memory"])
def test_a_failure_on_the_way_on_costs_no_earlier_result(
    failure: str, mine: Operator, run: Run
) -> None:
    whole = run(folder="whole", budget_tokens=40 * STEP)
    first = run(budget_tokens=15 * STEP)

    def fail(step: int, u: torch.Tensor) -> None:
        if failure == "memory":
            fall_short(step, u)
        raise ValueError("a bad day")

    mine.hook = fail
    if failure == "memory":
        assert run(budget_tokens=40 * STEP).status == "out-of-memory"
    else:
        with pytest.raises(OperatorError, match="a bad day"):
            run(budget_tokens=40 * STEP)
    assert read_result(first.path).data == first.data
    mine.once(0, lambda: None)
    again = run(budget_tokens=40 * STEP)
    data = again.data | {"micro_batch_size": whole.micro_batch_size}
    assert outcome(Result(again.path, data))["evaluations"] == whole.evaluations


PLUGIN = """import mechbench, torch

@mechbench.register_operator("of-a-plugin")
class Mine(torch.nn.Module):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(d_model, d_model)

    def forward(self, u):
        return FACTOR * self.mix(u)
"""


def test_an_edited_plugin_is_another_cell_and_not_carried_on(run: Run, tmp_path: Path) -> None:
    plugin, found = tmp_path / "plugin.py", []
    for factor, steps in (("1.0", 10), ("2.0", 20), ("1.0", 20)):
        plugin.write_text(PLUGIN.replace("FACTOR", factor))
        found.append(run("of-a-plugin", plugins=[str(plugin)], budget_tokens=steps * STEP))
    assert found[0].cell_id == found[2].cell_id != found[1].cell_id
    assert [result.steps for result in found] == [10, 20, 20]
    edited = run("of-a-plugin", "alone", plugins=[str(plugin)], budget_tokens=20 * STEP)
    check_same(found[2], edited)


def test_a_run_is_not_carried_on_once_a_built_in_operator_has_changed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("hyena", budget_tokens=10 * STEP)
    real = reuse._digest

    def changed(name: str) -> str:
        return "another" if name.endswith(".hyena") else real(name)

    monkeypatch.setattr(reuse, "_digest", changed)
    with pytest.raises(ConfigError) as got:
        run("hyena", budget_tokens=20 * STEP)
    assert str(got.value).startswith("mechbench.operators.hyena changed since ")
    assert "\n" not in str(got.value)
    assert read_result(first.path).data == first.data
    assert run("hyena", budget_tokens=10 * STEP).data == first.data  # it may be read
    shutil.copytree(tmp_path / "runs", tmp_path / "again")
    fresh = run("hyena", "again", budget_tokens=20 * STEP, resume=False)
    assert fresh.steps == 20


def test_the_outcome_of_a_run_with_branches_is_that_of_its_loop(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good are the validations in branches alone: two of one solve, whatever stands beside it."""
    monkeypatch.setattr(
        "mechbench.training.branches.StableDecay.__init__.__kwdefaults__",
        {**StableDecay.__init__.__kwdefaults__, "first_tokens": 10.0 * STEP, "share": 0.5},
    )
    seen: list[tuple[int, bool]] = []

    def graded(found: Callable[..., Score], good: Callable[[int, bool], bool]) -> Any:
        def validate(*args: Any) -> Score:
            score, schedule = found(*args), args[2]
            seen.append((len(seen), schedule.branching))
            return dataclasses.replace(score, correct=score.n * good(len(seen), seen[-1][1]))

        return validate

    own = loop.validate
    monkeypatch.setattr(loop, "validate", graded(own, lambda i, branch: branch))
    solved = run("attention", budget_tokens=60 * STEP, schedule="wsd")
    assert (solved.solved, solved.outcome["kind"]) == (True, "solved")
    assert solved.outcome["tokens"] == solved.train_tokens
    assert [row[-1] for row in rows(solved.path.parent)][-2:] == ["1", "1"]
    seen.clear()
    # The last of a branch and the first beside it.
    turns = [False, *[False, False, True], True, *[False] * 99]
    monkeypatch.setattr(loop, "validate", graded(own, lambda i, branch: turns[i - 1]))
    apart = run("attention", "apart", budget_tokens=60 * STEP, schedule="wsd")
    assert [branch for _, branch in seen[:5]] == [False, True, True, True, False]
    assert (apart.solved, apart.outcome["kind"]) == (False, "censored")
