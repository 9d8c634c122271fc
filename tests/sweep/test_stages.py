from __future__ import annotations

import dataclasses

from mechbench.plan.suite import Cell
from mechbench.record.config import TUNING_SEED, Config
from mechbench.sweep.stages import Stage, stage_lines, stages

T = TUNING_SEED
GRID = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def cells(operator: str, lrs: tuple[float, ...], seeds: tuple[int, ...]) -> list[Cell]:
    config = Config(operator, "recall", budget_tokens=1_000_000)
    configs = [dataclasses.replace(config, lr=lr, seed=seed) for lr in lrs for seed in seeds]
    return [Cell(config, config.cell_id, operator, {}) for config in configs]


def seconds(config: Config) -> float:
    return config.budget_tokens / 1e5


def test_each_stage_costs_what_is_added_to_the_one_before() -> None:
    made = cells("hyena", GRID, (T, T + 1, 0)) + cells("attention", GRID, (T, T + 1, 0))
    quarter = 250_000
    assert stages(made, seconds) == [
        Stage(20, 20, 20 * quarter, 20 * quarter, 50.0, 50.0),
        Stage(12, 20, 12 * quarter, 20 * quarter, 30.0, 50.0),
        Stage(8, 20, 8 * 2 * quarter, 20 * 2 * quarter, 40.0, 100.0),
    ]


def test_no_search_has_no_stages() -> None:
    assert stages(cells("hyena", (1e-3,), (0, 1)), seconds) == []
    assert stage_lines(cells("hyena", (1e-3,), (0, 1)), seconds) == []


def test_stages_in_words() -> None:
    assert stage_lines(cells("hyena", GRID, (T, T + 1, 0, 1, 2)), seconds) == [
        "learning rates: 5 for each of 1 point, 0.001 to 0.016, chosen with 2 seeds that are not "
        "reported; from the beginning, at most:",
        "  to 1/4 of the budget 10 cells, 2.5 M tokens, 25 s",
        "  to 1/2 of the budget 6 to 10 cells, 1.5 M to 2.5 M tokens, 15 s to 25 s",
        "  to the budget        4 to 10 cells, 2 M to 5 M tokens, 20 s to 50 s",
        "  reported seeds       3 cells, 3 M tokens, 30 s",
    ]
    two = cells("hyena", (1e-3, 2e-3), (T, 0))
    assert stage_lines(two, seconds)[1:] == [
        "  to the budget        2 cells, 2 M tokens, 20 s",
        "  reported seeds       1 cells, 1 M tokens, 10 s",
    ]
