from __future__ import annotations

import pytest

from mechbench.report.selection import Trial, select_lr


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
