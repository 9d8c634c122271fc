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
        Stage(10, 10, 10 * quarter, 10 * quarter, 25.0, 25.0),
        Stage(6, 10, 6 * quarter, 10 * quarter, 15.0, 25.0),
        Stage(4, 10, 4 * 2 * quarter, 10 * 2 * quarter, 20.0, 50.0),
    ]


def test_no_search_has_no_stages() -> None:
    assert stages(cells("hyena", (1e-3,), (0, 1)), seconds) == []
    assert stage_lines(cells("hyena", (1e-3,), (0, 1)), seconds) == []


def test_stages_in_words() -> None:
    assert stage_lines(cells("hyena", GRID, (T, T + 1, T + 2, 0, 1, 2)), seconds) == [
        "learning rates: 5 for each of 1 point, 0.001 to 0.016, tried with a seed that is not "
        "reported; from the beginning, at most:",
        "  to 1/4 of the budget 5 cells, 1.25 M tokens, 12 s",
        "  to 1/2 of the budget 3 to 5 cells, 750 K to 1.25 M tokens, 8 s to 12 s",
        "  to the budget        2 to 5 cells, 1 M to 2.5 M tokens, 10 s to 25 s",
        "  other such seeds     0 to 6 cells, 0 to 6 M tokens, 0 s to 60 s, if rates are close",
        "  reported seeds       3 cells, 3 M tokens, 30 s",
    ]
    two = cells("hyena", (1e-3, 2e-3), (T, 0))
    assert stage_lines(two, seconds)[1:] == [
        "  to the budget        2 cells, 2 M tokens, 20 s",
        "  reported seeds       1 cells, 1 M tokens, 10 s",
    ]
