from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.record.outcome import CellOutcome
from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.intervals import bootstrap_interval
from mechbench.report.solving import Solving, solving
from mechbench.report.survival import Outcome

Store = Callable[..., Path]


def told(outcome: CellOutcome, tokens: int) -> dict[str, Any]:
    return {"outcome": outcome.to_dict(), "train_tokens": tokens}


def flat(tokens: int, trend: str | None = "flat") -> CellOutcome:
    return CellOutcome("censored", tokens, 0.995, 0.3, 512, 40, 0.0, -0.1, 0.1, trend)


def read(tmp_path: Path) -> Solving:
    return solving(collect([tmp_path / "runs"])[0])


def test_every_kind_of_outcome(store: Store, tmp_path: Path) -> None:
    budget = {"budget_tokens": 9000}
    store(**budget, solved=True, **told(CellOutcome("solved", 4000), 5000))
    store({64: 0.2}, seed=1, **budget, **told(flat(8000), 8000))
    store({64: 0.3}, seed=2, **budget, **told(flat(8000, "rising"), 8000))
    store({64: 0.4}, seed=3, **budget, **told(flat(8000, None), 8000))
    store({}, seed=4, **budget, status="diverged", **told(CellOutcome("diverged", 700), 700))
    store({}, seed=5, **budget, status="error", **told(CellOutcome("failed", 700), 700))
    found = read(tmp_path)
    assert found.outcomes == [Outcome(4000, True), *[Outcome(8000, False)] * 4]
    assert (found.solved, found.failed) == (1, 1)
    assert found.trends == {"rising": 1, "flat": 1, "unclear": 1}
    assert found.unsolved == (
        pytest.approx(0.3), *bootstrap_interval([(200, 1000), (300, 1000), (400, 1000)]), 3
    )  # fmt: skip


def test_flops_and_seconds_are_each_cells_own(store: Store, tmp_path: Path) -> None:
    store(solved=True, flops_per_token=10.0, **told(CellOutcome("solved", 4000), 5000))
    store({64: 0.2}, seed=1, flops_per_token=20.0, **told(flat(8000), 8000))
    found = read(tmp_path)
    assert found.in_flops == [Outcome(40_000, True), Outcome(160_000, False)]
    # 1.5 s for 5,000 and 8,000 tokens
    assert [o.tokens for o in found.in_seconds] == pytest.approx([1.2, 1.5])
    assert [o.solved for o in found.in_seconds] == [True, False]
    store({64: 0.2}, seed=2, flops_per_token=None, **told(flat(8000), 8000))
    assert read(tmp_path).in_flops == []


def test_results_of_older_versions(store: Store, tmp_path: Path) -> None:
    store(solved=True)
    store(seed=1, train_tokens=6000)
    store({}, seed=2, status="out-of-memory")
    found = read(tmp_path)
    assert found.outcomes == [Outcome(5000, True), Outcome(6000, False)]
    assert (found.trends, found.failed) == ({"unclear": 1}, 1)


def test_nothing_that_was_trained(store: Store, tmp_path: Path) -> None:
    store({}, status="error", train_tokens=0)
    found = read(tmp_path)
    assert (found.outcomes, found.in_flops, found.failed) == ([], [], 1)
    assert (found.share, found.unsolved, found.trends) == (None, None, {})


def test_cells_of_one_budget_end_together(store: Store, tmp_path: Path) -> None:
    """A curriculum's stages may end apart, and so does the last step."""
    for seed, tokens in enumerate((8000, 8500, 8900)):
        store(seed=seed, budget_tokens=9000, **told(flat(tokens), tokens))
    store(seed=3, budget_tokens=4000, **told(flat(3900), 3900))
    store({}, seed=4, budget_tokens=9000, status="diverged", train_tokens=10)
    store({}, seed=5, budget_tokens=7000, status="diverged", train_tokens=10)
    # What diverged ends so with every larger budget.
    assert [o.tokens for o in read(tmp_path).outcomes] == [8000] * 3 + [3900, 8000, 8000]


def test_budgets_of_one_experiment_are_censoring(store: Store, tmp_path: Path) -> None:
    """A seed that stopped early counts where its siblings went on, as it would be left out else."""
    store(seed=0, budget_tokens=1000, solved=True, **told(CellOutcome("solved", 900), 900))
    store(seed=1, budget_tokens=5000, **told(flat(4900), 4900))
    store(seed=2, budget_tokens=2000, **told(flat(1900), 1900))
    store(seed=1, budget_tokens=2000, folder="older", **told(flat(1900), 1900))
    rows = collect([tmp_path / "runs", tmp_path / "older"])[0]
    (section,) = aggregate(rows)
    (together,) = [p.solving for p in section.points if p.solving.cells]
    assert [(o.tokens, o.solved) for o in together.outcomes] == [
        (900, True), (4900, False), (1900, False),
    ]  # fmt: skip
    assert len(section.points) == 2  # accuracies are of one budget each


def test_seeds_of_different_ends_are_one_point(store: Store, tmp_path: Path) -> None:
    store(seed=0, budget_tokens=1000, solved=True, **told(CellOutcome("solved", 900), 900))
    store(seed=1, budget_tokens=5000, **told(flat(4900), 4900))
    store(seed=2, budget_tokens=2000, **told(flat(1900), 1900))
    (section,) = aggregate(collect([tmp_path / "runs"])[0])
    (point,) = section.points
    assert [(o.tokens, o.solved) for o in point.solving.outcomes] == [
        (900, True), (4900, False), (1900, False),
    ]  # fmt: skip


def test_budgets_of_older_protocols_are_experiments_of_their_own(
    store: Store, tmp_path: Path
) -> None:
    old = {"protocol": 2, "schedule": "cosine"}
    for budget in (1000, 5000):
        store(budget_tokens=budget, **old, **told(flat(budget), budget))
    (section,) = aggregate(collect([tmp_path / "runs"])[0])
    assert [len(point.solving.cells) for point in section.points] == [1, 1]
