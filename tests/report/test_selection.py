from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
