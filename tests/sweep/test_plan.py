from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mechbench.errors import ConfigError
from mechbench.plan.resolve import resolve
from mechbench.plan.suite import Cell
from mechbench.plan.suite_file import read_suite
from mechbench.record.config import TUNING_SEED, Config
from mechbench.record.outcome import CellOutcome
from mechbench.record.results import write_json
from mechbench.sweep.choice import rungs_of
from mechbench.sweep.plan import Schedule, make_plan, stored_results

T = TUNING_SEED


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


def searched(
    operator: str = "hyena", lrs: tuple[float, ...] = (1e-3, 4e-3), seeds: tuple[int, ...] = (0, 1)
) -> list[Cell]:
    """Return the cells of a point where a rate is to be chosen, as a suite makes them."""
    return cells(operator, lrs, (T, *seeds))


def test_all_rates_run_with_a_seed_that_is_not_reported_and_the_others_wait() -> None:
    plan = make_plan(searched(seeds=(0, 1, 2)), {})
    assert where(plan.todo) == [(1e-3, T), (4e-3, T)]
    assert where(plan.waiting) == [(1e-3, 0), (1e-3, 1), (1e-3, 2)]
    assert where(plan.open) == [(1e-3, T), (4e-3, T)]
    assert plan.total == 5


def test_one_rate_needs_no_selection() -> None:
    plan = make_plan(cells(lrs=(1e-3,), seeds=(0, 1, 2)), {})
    assert (len(plan.todo), len(plan.waiting)) == (3, 0)


def test_the_chosen_rate_runs_with_the_reported_seeds() -> None:
    made = searched()
    low, _, _, high, *_ = made
    results = {low.cell_id: result(low, 0.2), high.cell_id: result(high, 0.9)}
    plan = make_plan(made, results)
    assert where(plan.done) == [(1e-3, T), (4e-3, T)]
    assert where(plan.todo) == [(4e-3, 0), (4e-3, 1)]
    assert plan.open == []
    results[high.cell_id] = result(high, 0.9, "diverged")
    assert where(make_plan(made, results).todo) == [(1e-3, 0), (1e-3, 1)]
    # What solves it counts more than what it is validated at.
    results[low.cell_id] |= {"solved": True, "validation_accuracy": 0.995}
    results[high.cell_id] = result(high, 0.999)
    assert where(make_plan(made, results).todo) == [(1e-3, 0), (1e-3, 1)]


def ran(cell: Cell, *accuracies: float, budget: int, solved: bool = False) -> dict[str, Any]:
    """Return a result with its validations, one every 100 tokens."""
    data = result(dataclasses.replace(cell, config=dataclasses.replace(
        cell.config, budget_tokens=budget)), accuracies[-1])  # fmt: skip
    validations = [(100 * i, accuracy) for i, accuracy in enumerate(accuracies, 1)]
    return {**data, "validations": validations, "train_tokens": budget, "solved": solved}


def test_the_better_half_is_carried_on_and_the_rest_stays() -> None:
    rates = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    made = searched(lrs=rates, seeds=(0,))
    trials = {cell.config.lr: cell for cell in made if cell.config.tunes}
    plan = make_plan(made, {})
    assert [(c.config.lr, c.config.budget_tokens) for c in plan.todo] == [(r, 250) for r in rates]
    assert all(cell.call["budget_tokens"] == 250 for cell in plan.todo)
    assert all(cell.config.budget_tokens == 1000 for cell in plan.open)
    results = {
        trials[lr].cell_id: ran(trials[lr], 0.1, a, budget=250)
        for lr, a in zip(rates, (0.2, 0.4, 0.6, 0.8, 0.3), strict=True)
    }
    plan = make_plan(made, results)
    assert [(c.config.lr, c.config.budget_tokens) for c in plan.todo] == [
        (2e-3, 500), (4e-3, 500), (8e-3, 500),
    ]  # fmt: skip
    assert where(plan.done) == [(1e-3, T), (1.6e-2, T)]
    assert where(plan.open) == [(2e-3, T), (4e-3, T), (8e-3, T)]
    # One that went further already is looked at where the others are.
    early = (0.1, 0.4, 0.4, 0.4, 0.4, 0.99, 0.99, 0.99, 0.99, 0.99)
    results[trials[2e-3].cell_id] = ran(trials[2e-3], *early, budget=1000)
    for lr, a in ((4e-3, 0.6), (8e-3, 0.8)):
        results[trials[lr].cell_id] = ran(trials[lr], 0.1, *[a] * 4, budget=500)
    plan = make_plan(made, results)
    assert [(c.config.lr, c.config.budget_tokens) for c in plan.todo] == [
        (4e-3, 1000), (8e-3, 1000),
    ]  # fmt: skip
    for lr, a, late in ((4e-3, 0.6, 0.95), (8e-3, 0.8, 0.8)):
        results[trials[lr].cell_id] = ran(trials[lr], 0.1, *[a] * 8, late, budget=1000)
    plan = make_plan(made, results)
    assert (where(plan.todo), plan.waiting, plan.open) == ([(4e-3, 0)], [], [])
    # A board knows no rows, and chooses the same unless told of a rate that went further.
    bare = {k: {n: v for n, v in data.items() if n != "validations"} for k, data in results.items()}
    del bare[trials[2e-3].cell_id]
    assert where(make_plan(made, bare, by_rows=False).waiting) == [(1e-3, 0)]
    stopped = {**result(trials[2e-3], 0.4), "train_tokens": 500}
    stopped["config"] = {**stopped["config"], "budget_tokens": 500}
    bare[trials[2e-3].cell_id] = stopped
    assert where(make_plan(made, bare, by_rows=False).todo) == [(4e-3, 0)]


def censored(cell: Cell, budget: int, trend: str | None) -> dict[str, Any]:
    data = ran(cell, 0.5, budget=budget)
    known = {"kind": "censored", "tokens": budget, "trend": trend, "accuracy": 0.5}
    return {**data, "outcome": {f.name: None for f in dataclasses.fields(CellOutcome)} | known}


def test_reported_cells_go_on_together_until_all_are_flat() -> None:
    made = [
        dataclasses.replace(cell, most_tokens=5000) for cell in cells(lrs=(1e-3,), seeds=(0, 1, 2))
    ]
    a, b, c = made

    def wanted(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, int]]:
        found = make_plan(made, results).todo
        assert all(cell.call.get("budget_tokens", 1000) == cell.config.budget_tokens
                   for cell in found)  # fmt: skip
        return [(cell.config.seed, cell.config.budget_tokens) for cell in found]

    results = {a.cell_id: censored(a, 1000, "rising"), b.cell_id: ran(b, 0.99, budget=1000)}
    results[b.cell_id] |= {"solved": True, "outcome": None}
    assert wanted(results) == [(2, 1000)]  # what they do is known once all have run
    results[c.cell_id] = censored(c, 1000, "flat")
    assert wanted(results) == [(0, 2000), (2, 2000)]
    results[a.cell_id] = censored(a, 2000, "flat")
    assert wanted(results) == [(2, 2000)]
    results[c.cell_id] = censored(c, 2000, "flat")
    assert wanted(results) == []
    for budget, further in ((2000, 4000), (4000, 5000)):
        results |= {cell.cell_id: censored(cell, budget, None) for cell in (a, c)}
        assert wanted(results) == [(0, further), (2, further)]
    results |= {cell.cell_id: censored(cell, 5000, "rising") for cell in (a, c)}
    assert wanted(results) == []
    assert make_plan(made, results).total == 3
    early = {cell.cell_id: censored(cell, 1000, "rising") for cell in made}
    assert make_plan(made, early, by_rows=False).todo == []  # a board holds what was run
    assert len(make_plan(cells(lrs=(1e-3,), seeds=(0, 1, 2)), early).done) == 3


def test_a_schedule_carries_cells_on_by_what_their_rows_say() -> None:
    made = searched(lrs=(1e-3, 2e-3, 4e-3), seeds=(0,))
    known = dict(zip([c.cell_id for c in made if c.config.tunes], (0.2, 0.6, 0.9), strict=True))

    def complete(cell: Cell, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**data, "validations": [(100, known[cell.cell_id])]}

    schedule = Schedule(made, {}, lambda c: c.config.lr, complete=complete)
    taken = []
    while (cell := schedule.take()) is not None:
        taken.append((cell.config.lr, cell.config.seed, cell.config.budget_tokens))
        budget, lr = cell.config.budget_tokens, cell.config.lr
        schedule.finished(cell, {**result(cell, lr), "train_tokens": budget})
    assert sorted(taken) == [
        (1e-3, T, 500), (2e-3, T, 500), (2e-3, T, 1000), (4e-3, 0, 1000), (4e-3, T, 500),
        (4e-3, T, 1000),
    ]  # fmt: skip


def test_a_schedule_counts_the_other_seeds_that_decide() -> None:
    made = cells(lrs=(1e-3, 2e-3, 4e-3), seeds=(T, T + 1, 0))
    schedule = Schedule(made, {}, lambda cell: 1.0)
    assert schedule.total == 3 + 1
    solved = 0
    while cell := schedule.take():
        found = {**result(cell, 1.0), "solved": cell.config.lr < 3e-3, "train_tokens": 500}
        schedule.finished(cell, found)
        solved += found["solved"]
    assert (schedule.total, solved) == (3 + 2 + 1, 2 + 2 + 1)


def test_no_rung_is_below_what_the_curriculum_needs(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        "title = 'T'\nlrs = 'grid'\ntasks = ['recall']\noperators = ['attention']\n"
        "settings.seqlen = 2048\nsettings.budget_tokens = 4_000_000\n"
    )
    made = read_suite(path).cells("cpu")
    budgets = rungs_of([cell for cell in made if cell.config.tunes])
    assert budgets[-1] == 4_000_000
    for cell in make_plan(made, {}).todo:
        assert cell.config.budget_tokens == budgets[0]
        assert resolve(**cell.call, device="cpu")[0] == cell.config
    with pytest.raises(ConfigError, match=r"cannot reach 2048|less than one"):
        resolve(**{**made[0].call, "budget_tokens": budgets[0] // 2}, device="cpu")


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
    made = searched(seeds=(1,))
    low, low1, high, _ = made
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
    made = searched(seeds=(1,))
    low, low1, high, _ = made
    results = {low.cell_id: result(low, 0.9), high.cell_id: result(high, 0.2)}
    results[low1.cell_id] = result(low1, 0.9)
    made = raised(made, 2000)
    plan = make_plan(made, results)
    assert (where(plan.todo), plan.done) == ([(1e-3, T), (4e-3, T)], [])
    assert where(plan.waiting) == [(1e-3, 1)]
    schedule = Schedule(made, results, lambda c: c.config.lr)
    for validation, expected in ((0.95, (4e-3, T)), (0.3, (1e-3, T))):
        cell = schedule.take()
        assert cell is not None
        assert (cell.config.lr, cell.config.seed) == expected
        assert len(schedule) == (cell.config.lr > 2e-3)
        schedule.finished(cell, result(cell, validation))
    last = schedule.take()
    assert last is not None
    assert (last.config.lr, last.config.seed) == (4e-3, 1)  # the late one, whatever stood before


def test_a_restarted_schedule_goes_on_from_the_rung_that_was_begun() -> None:
    """Cells to be carried on are not begun with what they have passed already."""
    rates = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    made = searched(lrs=rates, seeds=(0,))
    trials = [cell for cell in made if cell.config.tunes]
    ends = (0.1, 0.3, 0.5, 0.7, 0.9)
    results = {
        cell.cell_id: ran(cell, a, a, budget=250) for cell, a in zip(trials, ends, strict=True)
    }
    known = {cell.cell_id: a for cell, a in zip(trials, ends, strict=True)}
    schedule = Schedule(
        made, results, lambda c: c.config.lr,
        complete=lambda cell, data: {**data, "validations": [(100, known[cell.cell_id])]},
    )  # fmt: skip
    taken = []
    while (cell := schedule.take()) is not None:
        taken.append((cell.config.lr, cell.config.budget_tokens))
        schedule.finished(cell, {**result(cell, known.get(cell.cell_id)), "solved": False})
    assert taken == [(1.6e-2, 500), (8e-3, 500), (4e-3, 500), (1.6e-2, 1000), (8e-3, 1000),
                     (1.6e-2, 1000)]  # fmt: skip


def test_no_rate_is_chosen_while_a_failure_is_tried_again() -> None:
    made = searched()
    low, _, _, high, *_ = made
    results = {low.cell_id: result(low, 0.2), high.cell_id: result(high, None, "error")}
    assert where(make_plan(made, results).todo) == [(1e-3, 0), (1e-3, 1)]
    plan = make_plan(made, results, retry_failed=True)
    assert (where(plan.todo), where(plan.waiting)) == ([(4e-3, T)], [(1e-3, 0), (1e-3, 1)])
    schedule = Schedule(made, results, lambda c: c.config.lr, retry_failed=True)
    assert schedule.take() == high
    assert schedule.take() is None
    schedule.finished(high, result(high, 0.9))
    assert [schedule.take(), schedule.take()] in (made[4:], made[:3:-1])
