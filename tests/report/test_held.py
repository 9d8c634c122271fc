from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.report.held import held_up_to, trained_range

Store = Callable[..., Path]


def section(tmp_path: Path) -> Section:
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    return found


@pytest.mark.parametrize(
    ("accuracies", "held"),
    [
        ({64: 0.99, 128: 0.95, 256: 0.91}, 256),
        ({64: 0.99, 128: 0.5, 256: 0.95}, 64),  # beyond a gap nothing is held
        ({32: 0.2, 64: 0.99, 128: 0.9}, 64),  # counted from training on; 0.9 is not above
        ({64: 0.5, 128: 0.99}, None),
    ],
)
def test_how_far_accuracy_stays_high(
    store: Store, tmp_path: Path, accuracies: dict[int, float], held: int | None
) -> None:
    store(accuracies)
    assert held_up_to(section(tmp_path).points) == held


def test_what_diverged_holds_nothing(store: Store, tmp_path: Path) -> None:
    store({64: 0.99, 128: 0.99}, status="diverged")
    assert held_up_to(section(tmp_path).points) is None


def test_the_range_of_training(store: Store, tmp_path: Path) -> None:
    store({40: 0.9, 80: 0.5}, seqlen=40, task="parity", task_options={"min_seqlen": 3})
    assert trained_range(section(tmp_path)) == (3, 40)


def test_a_range_of_one_length(store: Store, tmp_path: Path) -> None:
    store({64: 0.9, 128: 0.5})
    assert trained_range(section(tmp_path)) == (64, 64)


def test_no_range_where_models_differ_or_nothing_goes_further(store: Store, tmp_path: Path) -> None:
    store({64: 0.9})
    assert trained_range(section(tmp_path)) is None
    store({128: 0.9, 256: 0.5}, seqlen=128)
    assert trained_range(section(tmp_path)) is None
