from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechbench.plan.suite import Cell
from mechbench.record.config import TUNING_SEED, Config
from mechbench.report.tuning import Reading, tuned_lr
from mechbench.sweep.choice import FINALISTS, NEAR, Choice, choose, finalists, parted
from mechbench.sweep.readings import counts

T = TUNING_SEED
BUDGET = 1 << 20
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
Solves = Mapping[tuple[float, int], float]  # (rate, seed): tokens to solve it


def cells(seeds: int = 3, rates: tuple[float, ...] = RATES) -> list[Cell]:
    made = []
    for lr, seed in itertools.product(rates, range(T, T + seeds)):
        config = Config("hyena", "recall", budget_tokens=BUDGET, lr=lr, seed=seed)
        made.append(Cell(config, config.cell_id, "hyena", {}))
    return made


def trained(cell: Cell, solves: float) -> dict[str, Any]:
    """Return the result of a cell that more tokens than `solves` solve."""
    budget = cell.config.budget_tokens
    solved = solves <= budget
    tokens = int(min(solves, budget))
    return {
        "status": "ok", "solved": solved, "config": cell.config.to_dict(), "train_tokens": tokens,
        "validation_accuracy": 1.0 if solved else 0.3, "validations": [(tokens, 0.3)],
    }  # fmt: skip


def searched(
    made: list[Cell], solves: Callable[[float, int], float]
) -> tuple[Choice, dict[str, Any]]:
    """Train what is needed until a rate is chosen."""
    results: dict[str, Any] = {}
    for _ in range(100):
        found = choose(made, results)
        due = [cell for cell in found.needed if not counts(cell, results)]
        if found.lr is not None:
            assert not due
            return found, results
        assert due
        for cell in due:
            results[cell.cell_id] = trained(cell, solves(cell.config.lr, cell.config.seed - T))
    raise AssertionError("it does not end")


def test_a_rate_that_is_fast_once_gives_way_to_one_that_is_sure() -> None:
    made = cells()
    fast, sure = 8e-3, 4e-3
    tokens = {(fast, 0): 1e5, (sure, 0): 2e5, (sure, 1): 2e5, (sure, 2): 3e5}
    found, results = searched(made, lambda lr, seed: tokens.get((lr, seed), 1e9))
    assert found.lr == sure
    ran = {(d["config"]["lr"], d["config"]["seed"] - T) for d in results.values()}
    assert ran == {(lr, 0) for lr in RATES} | {(lr, s) for lr in (fast, sure) for s in (1, 2)}
    # Of one seed alone it would be the fast one, and with it the others do not run.
    found, results = searched(cells(1), lambda lr, seed: tokens.get((lr, seed), 1e9))
    assert (found.lr, len(results)) == (fast, len(RATES))


@pytest.mark.parametrize("solving", [0, 1])
def test_other_seeds_run_only_where_several_rates_solve(solving: int) -> None:
    found, results = searched(cells(), lambda lr, seed: 1e5 if lr in RATES[:solving] else 1e9)
    assert len(results) == len(RATES)
    assert found.lr == 1e-3  # which solves, or is the lower of equals


def test_finalists_are_near_the_fastest_and_few() -> None:
    def stood(**tokens: float) -> dict[float, list[Reading]]:
        return {float(lr): [Reading(t, t < BUDGET, 0.5)] for lr, t in tokens.items()}

    assert finalists(stood(**{"1": 10.0, "2": NEAR * 10.0, "3": NEAR * 10.0 + 1})) == (1.0, 2.0)
    assert finalists(stood(**{"1": 10.0, "2": BUDGET})) == ()
    assert finalists(stood(**{"1": BUDGET, "2": BUDGET})) == ()
    assert len(finalists(stood(**{str(i): 10.0 + i for i in range(9)}))) == FINALISTS


@given(
    st.integers(1, 3),
    st.dictionaries(
        st.tuples(st.sampled_from(RATES), st.integers(0, 2)), st.floats(1e3, 2 * BUDGET)
    ),
)
@settings(deadline=None, max_examples=60)
def test_a_board_that_knows_results_alone_chooses_the_same(seeds: int, tokens: Solves) -> None:
    made = cells(seeds)
    found, results = searched(made, lambda lr, seed: tokens.get((lr, seed), 1e9))
    bare = {k: {n: v for n, v in d.items() if n != "validations"} for k, d in results.items()}
    again = choose(made, bare, by_rows=False)
    assert again.lr == found.lr == tuned_lr(bare.values())
    assert {cell.cell_id for cell in again.needed} == set(results)
    scouts, others = parted(made)
    assert {cell.cell_id for cell in scouts} <= set(results)
    assert len(results) <= len(scouts) + FINALISTS * (seeds - 1)
    assert not others or len(others) == len(RATES) * (seeds - 1)


def test_a_choice_waits_for_the_last_of_the_finalists() -> None:
    made = cells(2, (1e-3, 2e-3))
    results = {c.cell_id: trained(c, 1e5) for c in made}
    last = made[-1].cell_id
    del results[last]
    found = choose(made, results)
    assert (found.lr, found.open) == (None, [])
    assert [c.cell_id for c in found.needed if not counts(c, results)] == [last]
    assert choose(made, {**results, last: trained(made[-1], 1e9)}).lr == 1e-3
    assert choose(made, {**results, last: {**trained(made[-1], 1e9), "status": "oom"}}).lr == 1e-3
