from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from mechbench.plan.suite import Cell
from mechbench.record.config import Config
from mechbench.record.results import write_json
from mechbench.sweep.plan import Schedule, make_plan, stored_results


def cells(
    operator: str = "hyena", lrs: tuple[float, ...] = (1e-3, 4e-3), seeds: tuple[int, ...] = (0, 1)
) -> list[Cell]:
    made = []
    for lr, seed in itertools.product(lrs, seeds):
        config = Config(operator, "recall", budget_tokens=1000, lr=lr, seed=seed)
        made.append(Cell(config, config.cell_id, operator, {}))
    return made


def result(cell: Cell, validation: float | None = 0.5, status: str = "ok") -> dict[str, Any]:
    return {
        "status": status,
        "reason": "why",
        "config": cell.config.to_dict(),
        "validation_accuracy": validation,
        "train_tokens": 100,
    }


def where(found: list[Cell]) -> list[tuple[float, int]]:
    return [(c.config.lr, c.config.seed) for c in found]


def test_all_rates_run_with_the_first_seed_and_the_others_wait() -> None:
    plan = make_plan(cells(seeds=(0, 1, 2)), {})
    assert where(plan.todo) == [(1e-3, 0), (4e-3, 0)]
    assert where(plan.waiting) == [(1e-3, 1), (1e-3, 2)]
    assert plan.total == 4


def test_one_rate_needs_no_selection() -> None:
    plan = make_plan(cells(lrs=(1e-3,), seeds=(0, 1, 2)), {})
    assert (len(plan.todo), len(plan.waiting)) == (3, 0)


def test_the_selected_rate_runs_with_the_other_seeds() -> None:
    low, low1, high, high1 = cells()
    results = {low.cell_id: result(low, 0.2), high.cell_id: result(high, 0.9)}
    plan = make_plan([low, low1, high, high1], results)
    assert (where(plan.done), where(plan.todo)) == ([(1e-3, 0), (4e-3, 0)], [(4e-3, 1)])
    results[high.cell_id] = result(high, 0.9, "diverged")
    assert where(make_plan([low, low1, high, high1], results).todo) == [(1e-3, 1)]


def test_failures_are_apart_and_tried_again_only_when_asked() -> None:
    made = cells(lrs=(1e-3,), seeds=(0, 1, 2))
    results = {
        c.cell_id: result(c, None, status)
        for c, status in zip(made, ("error", "diverged", "out-of-memory"), strict=True)
    }
    plan = make_plan(made, results)
    assert [reason for _, reason in plan.failed] == ["why", "why"]
    assert where(plan.done) == [(1e-3, 1)]
    assert plan.todo == []
    plan = make_plan(made, results, retry_failed=True)
    assert where(plan.todo) == [(1e-3, 0), (1e-3, 2)]


def test_schedule_gives_the_longest_first_and_each_once() -> None:
    made = [*cells("hyena", (1e-3,), (0,)), *cells("attention", (1e-3,), (0, 1))]
    cost = {made[0].cell_id: 2.0, made[1].cell_id: 9.0, made[2].cell_id: 1.0}
    schedule = Schedule(made, {}, lambda c: cost[c.cell_id])
    taken = [schedule.take() for _ in range(4)]
    assert taken == [made[1], made[0], made[2], None]
    schedule.again(made[2])
    assert len(schedule) == 1
    assert schedule.take() == made[2]


def simulated(
    schedule: Schedule, costs: dict[str, float], workers: int
) -> tuple[float, list[tuple[str, ...]]]:
    """Run a schedule in no time; return when it ends, and the kinds each worker began with."""
    running: dict[int, tuple[float, Cell]] = {}
    at: dict[int, str] = {}
    began: list[list[str]] = [[] for _ in range(workers)]
    now = 0.0
    while True:
        for worker in range(workers):
            if worker in running:
                continue
            others = [kind for other, kind in at.items() if other != worker]
            cell = schedule.take(at.get(worker), others)
            if cell is None:
                continue
            running[worker] = now + costs[cell.group], cell
            if at.get(worker) != cell.group:
                began[worker].append(cell.group)
            at[worker] = cell.group
        if not running:
            assert len(schedule) == 0
            return now, [tuple(kinds) for kinds in began]
        first = min(running, key=lambda worker: running[worker][0])
        now = running.pop(first)[0]


def suite(**sizes: int) -> list[Cell]:
    return [c for name, n in sizes.items() for c in cells(name, (1e-3,), tuple(range(n)))]


def schedule_of(made: list[Cell], costs: dict[str, float], begin_s: float = 0.0) -> Schedule:
    return Schedule(made, {}, lambda c: costs[c.group], begin_s=begin_s)


@pytest.mark.parametrize(("attention", "n"), [(0.3, 2), (0.2, 2), (0.05, 1)])
def test_kinds_are_spread_over_workers(attention: float, n: int) -> None:
    costs = {"hyena": 0.3, "attention": attention}
    schedule = schedule_of(suite(hyena=32, attention=32), costs, begin_s=2.0)
    end, began = simulated(schedule, costs, 4)
    assert sorted(kinds[0] for kinds in began) == ["attention"] * n + ["hyena"] * (4 - n)
    assert sum(map(len, began)) <= 6  # 8 if every worker took both
    assert end <= 1.35 * 32 * sum(costs.values()) / 4 + 2.0


def test_a_worker_does_not_begin_with_what_others_soon_end() -> None:
    costs = {"hyena": 1.0, "attention": 1.0}
    made = suite(hyena=6, attention=3)
    began = simulated(schedule_of(made, costs, 5.0), costs, 2)[1]
    assert sorted(began) == [("attention",), ("hyena",)]
    began = simulated(schedule_of(made, costs), costs, 2)[1]
    assert sorted(map(len, began)) == [1, 2]


def test_long_cells_do_not_wait_for_short_ones() -> None:
    costs = {"hyena": 100.0, "attention": 1.0}
    end, _ = simulated(schedule_of(suite(hyena=1, attention=300), costs), costs, 2)
    assert end <= 202
    costs = {"hyena": 10.0, **{f"s{i}": 0.1 for i in range(50)}}
    made = suite(hyena=2, **{f"s{i}": 1 for i in range(50)})
    assert simulated(schedule_of(made, costs), costs, 2)[0] <= 13


def test_a_cell_put_back_is_taken_again_even_if_its_kind_is_not_worth_beginning() -> None:
    costs = {"hyena": 1.0, "attention": 1.0}
    schedule = schedule_of(suite(hyena=1, attention=1), costs, begin_s=100.0)
    first = schedule.take()
    assert first is not None
    schedule.again(first)
    schedule.take("other", [])
    assert schedule.take("other", []) is not None
    assert len(schedule) == 0
    assert schedule.take("other", []) is None


@pytest.mark.parametrize("retry", [False, True])
def test_schedule_adds_what_a_finished_cell_decides(retry: bool) -> None:
    low, low1, high, high1 = cells()
    made = [low, low1, high, high1]
    stored = {low.cell_id: result(low, None, "error")} if retry else {}
    schedule = Schedule(made, stored, lambda c: c.config.lr, retry_failed=retry)
    assert schedule.take() == high
    schedule.finished(high, result(high, 0.3))
    assert schedule.take() == low
    assert schedule.take() is None
    schedule.finished(low, result(low, 0.4))
    assert schedule.take() == low1
    schedule.finished(low1, result(low1, 0.4))
    assert schedule.take() is None


def test_results_are_read_and_damaged_ones_count_as_absent(tmp_path: Path) -> None:
    first, second, third, fourth = cells(lrs=(1e-3,), seeds=(0, 1, 2, 3))
    for cell in (first, second, fourth):
        (tmp_path / cell.cell_id).mkdir()
    data = {
        "schema_version": 1, "cell_id": first.cell_id, "chance": 0.1, "evaluations": [],
        "provenance": {}, **result(first, status="diverged"),
    }  # fmt: skip
    write_json(tmp_path / first.cell_id / "result.json", data)
    (tmp_path / second.cell_id / "result.json").write_text("{")
    write_json(tmp_path / fourth.cell_id / "result.json", data)  # a copy of another cell's
    assert stored_results([first, second, third, fourth], tmp_path) == {first.cell_id: data}


def raised(made: list[Cell], budget_tokens: int) -> list[Cell]:
    """Return the cells of the same suite with another budget."""
    configs = [dataclasses.replace(c.config, budget_tokens=budget_tokens) for c in made]
    again = [Cell(config, config.cell_id, "hyena", {}) for config in configs]
    assert [c.cell_id for c in again] == [c.cell_id for c in made]
    return again


def test_a_larger_budget_carries_on_what_is_not_decided() -> None:
    made = cells(lrs=(1e-3,), seeds=(0, 1, 2, 3))
    results = {c.cell_id: result(c) for c in made}
    results[made[1].cell_id]["solved"] = True
    results[made[2].cell_id]["status"] = "diverged"
    results[made[3].cell_id]["status"] = "error"
    assert make_plan(made, results).todo == []
    plan = make_plan(raised(made, 2000), results)
    assert where(plan.todo) == [(1e-3, 0)]
    assert where(plan.done) == [(1e-3, 1), (1e-3, 2)]
    assert len(plan.failed) == 1
    assert make_plan(raised(made, 900), results).todo == []


def test_rates_are_compared_once_all_have_come_to_the_same_budget() -> None:
    low, low1, high, high1 = cells()
    results = {low.cell_id: result(low, 0.9), high.cell_id: result(high, 0.2)}
    results[low1.cell_id] = result(low1, 0.9)
    made = raised([low, low1, high, high1], 2000)
    plan = make_plan(made, results)
    assert (where(plan.todo), plan.done) == ([(1e-3, 0), (4e-3, 0)], [])
    assert where(plan.waiting) == [(1e-3, 1)]
    schedule = Schedule(made, results, lambda c: c.config.lr)
    for validation, expected in ((0.95, (4e-3, 0)), (0.3, (1e-3, 0))):
        cell = schedule.take()
        assert cell is not None
        assert (cell.config.lr, cell.config.seed) == expected
        assert len(schedule) == (cell.config.lr > 2e-3)
        schedule.finished(cell, result(cell, validation))
    last = schedule.take()
    assert last is not None
    assert (last.config.lr, last.config.seed) == (4e-3, 1)  # the late one, whatever stood before


def test_a_rate_that_went_further_is_looked_at_where_the_others_are(tmp_path: Path) -> None:
    low, low1, high, high1 = cells()
    for cell, tokens, validation in ((low, 5000, 0.99), (high, 1000, 0.5)):
        config = dataclasses.replace(cell.config, budget_tokens=tokens)
        folder = tmp_path / cell.cell_id
        folder.mkdir()
        data = {
            "schema_version": 1, "cell_id": cell.cell_id, "chance": 0.1, "provenance": {},
            "evaluations": [
                {
                    "seqlen": 64, "n": 1, "correct": 1, "accuracy": 1.0, "ci_low": 0.1,
                    "ci_high": 1.0, "dense_n": 1, "dense_accuracy": 1.0, "shortcuts": {},
                    "required_context": {},
                }
            ],
            **result(cell, validation), "config": config.to_dict(), "train_tokens": tokens,
            "solved": cell is low,
        }  # fmt: skip
        write_json(folder / "result.json", data)
    rows = "".join(f"{i},{900 * i},64,0.5,0.5,{0.1 * i},,1,1\n" for i in range(1, 6))
    path = tmp_path / low.cell_id / "metrics.csv"
    path.write_text(
        "step,tokens,seqlen,loss,train_accuracy,validation_accuracy,"
        f"validation_dense_accuracy,tokens_per_s,train_s\n{rows}"
    )
    made = [low, low1, high, high1]
    found = stored_results(made, tmp_path)
    data = found[low.cell_id]
    assert (data["validation_accuracy"], data["train_tokens"], data["solved"]) == (0.1, 900, False)
    assert where(make_plan(made, found).todo) == [(4e-3, 1)]
    assert stored_results(raised(made, 5000), tmp_path)[low.cell_id]["validation_accuracy"] == 0.99
    path.write_text("damaged")
    assert stored_results(made, tmp_path)[low.cell_id]["validation_accuracy"] is None
