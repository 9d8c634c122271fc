from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.record.config import TUNING_SEED, Config
from mechbench.report.collect import collect
from mechbench.report.tuning import (
    Reading,
    Tuning,
    best,
    merit,
    reading,
    tied,
    tuned_lr,
    tuning_key,
    tunings,
)

T = TUNING_SEED


def open_at(accuracy: float | None, budget: int = 1000, positions: int = 512) -> Reading:
    return Reading(budget, False, accuracy, positions)


def solved_at(tokens: float) -> Reading:
    return Reading(tokens, True, 1.0, over=True)


LOST = Reading(1000, False, 0.0, over=True)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ([solved_at(900)], [open_at(0.99)]),
        ([solved_at(900)], [solved_at(901)]),
        ([open_at(0.5)], [open_at(0.4)]),
        ([open_at(0.1)], [open_at(None)]),
        ([open_at(0.0)], [LOST]),
        ([solved_at(900), solved_at(900)], [solved_at(10), open_at(0.9)]),
        ([solved_at(10), open_at(0.1)], [solved_at(20), open_at(0.9)]),
        ([open_at(0.5), open_at(0.5)], [open_at(0.9), LOST]),
    ],
)
def test_share_solved_then_tokens_then_accuracy(
    better: list[Reading], worse: list[Reading]
) -> None:
    assert best({1e-3: worse, 2e-3: better}) == best({2e-3: better, 4e-3: worse}) == 2e-3
    assert not tied(better, worse) or (better[0].accuracy, worse[0].accuracy) != (0.5, 0.4)


def test_of_equals_the_lower_rate_and_none_of_none() -> None:
    assert best({2e-3: [open_at(0.5)], 1e-3: [open_at(0.5)]}) == 1e-3
    assert merit(1e-3, [open_at(0.5)])[-1] == 1e-3
    with pytest.raises(ValueError, match="no rate"):
        best({})


def test_tied_is_what_validation_cannot_tell_apart() -> None:
    assert tied([open_at(0.50)], [open_at(0.55)])
    assert not tied([open_at(0.50)], [open_at(0.60)])
    assert not tied([open_at(0.50, positions=9999)], [open_at(0.55, positions=9999)])
    # More seeds tell more.
    assert not tied([open_at(0.50)] * 4, [open_at(0.55)] * 4)
    assert tied([open_at(None)], [open_at(0.9)])
    assert not tied([solved_at(10)], [open_at(None)])
    assert not tied([solved_at(10)], [solved_at(11)])
    assert tied([solved_at(10)], [solved_at(10)])


def data(
    lr: float, seed: int = T, budget: int = 1000, status: str = "ok", **changes: Any
) -> dict[str, Any]:
    config = Config("hyena", "recall", budget_tokens=budget, lr=lr, seed=seed, n_validation=64)
    return {
        "cell_id": config.cell_id, "status": status, "config": config.to_dict(),
        "train_tokens": budget, "validation_accuracy": 0.5, **changes,
    }  # fmt: skip


def test_results_are_read_at_their_end() -> None:
    assert reading(data(1e-3), 2000) == Reading(2000, False, 0.5, 64)
    assert reading(data(1e-3, solved=True), 2000) == Reading(1000, True, 0.5, 64, over=True)
    for status in ("diverged", "error", "out-of-memory"):
        assert reading(data(1e-3, status=status), 2000) == Reading(2000, False, 0.0, 64, over=True)
    told = {"kind": "censored", "tokens": 1000, "positions": 512}
    assert reading(data(1e-3, outcome=told), 2000).positions == 512


def test_the_best_of_those_that_came_to_the_end() -> None:
    dropped, last = data(1e-3, budget=250, validation_accuracy=0.9), data(2e-3)
    assert tuned_lr([dropped, last, data(4e-3, validation_accuracy=0.4)]) == 2e-3
    assert tuned_lr([dropped, last], 2000) is None
    solved = data(8e-3, budget=250, solved=True, train_tokens=100)
    assert tuned_lr([dropped, last, solved]) == 8e-3
    # A rate that was tried with fewer seeds than others does not stand for all.
    two = [data(1e-3, s, validation_accuracy=0.2) for s in (T, T + 1)]
    assert tuned_lr([*two, data(2e-3)]) == 1e-3
    assert tuned_lr([data(2e-3), *two]) == 1e-3
    assert tuned_lr([{**data(2e-3), "status": "not-run"}]) is None
    assert tuned_lr([]) is None


def test_edges_are_of_grids_alone() -> None:
    grid = Tuning((1e-3, 2e-3, 4e-3), 3, 100)
    assert [grid.at_edge(lr) for lr in (1e-3, 2e-3, 4e-3)] == [True, False, True]
    assert not Tuning((1e-3,), 1, 100).at_edge(1e-3)
    assert not Tuning().at_edge(1e-3)


def test_trials_are_counted_once_and_by_the_furthest(
    store: Callable[..., Path], tmp_path: Path
) -> None:
    for lr in (1e-3, 2e-3):
        accuracies = {64: 0.9, 128: 0.5}  # a result is several rows
        store(accuracies, lr=lr, seed=T, train_tokens=700, budget_tokens=1000)
        store(accuracies, lr=lr, seed=0)
    store(lr=1e-3, seed=T, train_tokens=200, budget_tokens=250, folder="older",
          eval_seqlens=(64, 128))  # fmt: skip
    store({}, lr=4e-3, seed=T, status="error", train_tokens=50, eval_seqlens=(64, 128))
    rows = collect([tmp_path / "runs", tmp_path / "older"])[0]
    (key,) = {tuning_key(row) for row in rows}
    assert tunings(rows) == {key: Tuning((1e-3, 2e-3, 4e-3), 3, 1450)}
    assert tunings([row for row in rows if not row.config.tunes]) == {}
