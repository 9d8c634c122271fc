from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.record.config import TUNING_SEED
from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.selection import Trial, select_lr, selected


def trial(
    lr: float, validation: float | None, seed: int = 0, status: str = "ok", tokens: int = 100
) -> Trial:
    return Trial(lr, seed, status, validation, tokens)


def test_highest_validation_accuracy_is_chosen() -> None:
    assert select_lr([trial(1e-3, 0.5), trial(2e-3, 0.7), trial(4e-3, 0.6)]) == 2e-3


def test_of_equals_the_quicker_then_the_lower_is_chosen() -> None:
    assert select_lr([trial(1e-3, 1.0, tokens=9), trial(2e-3, 1.0, tokens=5)]) == 2e-3
    assert select_lr([trial(2e-3, 1.0), trial(1e-3, 1.0)]) == 1e-3


@pytest.mark.parametrize("status", ["diverged", "error", "out-of-memory"])
def test_what_failed_counts_as_nothing(status: str) -> None:
    assert select_lr([trial(1e-3, 0.2), trial(2e-3, 0.9, status=status)]) == 1e-3
    assert select_lr([trial(1e-3, None), trial(2e-3, 0.1)]) == 2e-3


def test_only_common_seeds_count() -> None:
    lucky = [trial(1e-3, 0.5, 0), trial(1e-3, 1.0, 1), trial(1e-3, 1.0, 2)]
    assert select_lr([*lucky, trial(2e-3, 0.6, 0)]) == 2e-3
    assert select_lr([trial(1e-3, 0.5, 0), trial(2e-3, 0.6, 1)]) == 2e-3


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trial"):
        select_lr([])


def test_rows_of_the_selected_rate_are_kept_at_each_point(
    store: Callable[..., Path], tmp_path: Path
) -> None:
    """Chosen by validation, although the other rate is better on the test examples."""
    for seqlen, best in ((64, 1e-3), (128, 4e-3)):
        for lr in (1e-3, 4e-3):
            for seed in (0, 1) if lr == best else (0,):
                good = lr == best
                store(
                    {seqlen: 0.5 if good else 0.9}, seqlen=seqlen, lr=lr, seed=seed,
                    validation_accuracy=0.8 if good else 0.6,
                )  # fmt: skip
    rows = selected(collect([tmp_path / "runs"])[0])
    kept = {(r.config.seqlen, r.config.lr, r.config.seed) for r in rows}
    assert kept == {(64, 1e-3, 0), (64, 1e-3, 1), (128, 4e-3, 0), (128, 4e-3, 1)}
    (section,) = aggregate(rows, hidden=("lr",))
    assert list(section.curves) == ["hyena"]
    assert [(p.accuracy, p.cost.lr) for p in section.points] == [(0.5, "0.001"), (0.5, "0.004")]


def test_cells_of_their_own_choose_and_those_reported_do_not(
    store: Callable[..., Path], tmp_path: Path
) -> None:
    """By the share solved and the tokens first, whatever the rates do on the seeds reported."""
    for lr, accuracy, budget in ((1e-3, 0.2, 250), (2e-3, 0.9, 1000), (4e-3, 0.6, 1000)):
        store(
            {64: accuracy}, lr=lr, seed=TUNING_SEED, validation_accuracy=accuracy,
            budget_tokens=budget, train_tokens=budget,
        )  # fmt: skip
        for seed in (0, 1):
            store({64: 1 - accuracy}, lr=lr, seed=seed, validation_accuracy=1 - accuracy)
    rows = selected(collect([tmp_path / "runs"])[0])
    reported = {(r.config.lr, r.config.seed) for r in rows if not r.config.tunes}
    assert reported == {(2e-3, 0), (2e-3, 1)}
    assert sum(row.config.tunes for row in rows) == 3
    (section,) = aggregate(rows, hidden=("lr",))
    (point,) = section.points
    assert (point.n_seeds, point.accuracy) == (2, pytest.approx(0.1))
    cost = point.cost
    assert (cost.lr, cost.lr_at_edge, cost.tuning_trials, cost.tuning_tokens) == (
        "0.002", False, 3, 2250,
    )  # fmt: skip


def test_high_seeds_of_older_protocols_are_seeds_like_others(
    store: Callable[..., Path], tmp_path: Path
) -> None:
    store(lr=1e-3, seed=TUNING_SEED, protocol=2, schedule="cosine")
    (row,) = selected(collect([tmp_path / "runs"])[0])
    assert not row.config.tunes
    assert aggregate([row])[0].points[0].n_seeds == 1
