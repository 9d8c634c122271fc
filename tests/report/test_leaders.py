from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.report.leaders import Verdict
from mechbench.report.log_rank import log_rank

Store = Callable[..., Path]
LATE, SOON = [60_000, 70_000, 80_000, 90_000, 95_000], [10_000, 11_000, 12_000, 13_000, 14_000]


def seeds(store: Store, operator: str, tokens: list[int | None], **settings: object) -> None:
    """Store a cell a seed, solved after so many tokens, or given up after 100,000."""
    for seed, t in enumerate(tokens):
        store(
            operator=operator, seed=seed, solved=t is not None, train_tokens=t or 100_000,
            budget_tokens=100_000, **settings,
        )  # fmt: skip


def section(tmp_path: Path) -> Section:
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    return found


def test_the_one_told_from_all_others_is_best(store: Store, tmp_path: Path) -> None:
    seeds(store, "soon", SOON)
    seeds(store, "late", LATE)
    seeds(store, "never", [None] * 5)
    found = section(tmp_path)
    assert found.best(64) == "soon"
    race = found.races[64]
    assert race == found.verdicts[64]
    assert (race.by_solving, race.order) == (True, ("soon", "late", "never"))
    p = log_rank(found.solvers(64)["soon"], found.solvers(64)["late"])
    assert race.worse["late"] == pytest.approx(2 * p)  # Holm's, of two


def test_a_lower_accuracy_may_solve_sooner(store: Store, tmp_path: Path) -> None:
    for seed, t in enumerate(SOON):
        store({64: 0.995}, operator="soon", seed=seed, solved=True, train_tokens=t)
    for seed, t in enumerate(LATE):
        store({64: 1.0}, operator="late", seed=seed, solved=True, train_tokens=t)
    assert section(tmp_path).best(64) == "soon"


def test_what_the_test_cannot_tell_is_not_best(store: Store, tmp_path: Path) -> None:
    seeds(store, "a", SOON)
    seeds(store, "b", [t + 500 for t in SOON])
    seeds(store, "never", [None] * 5)
    race = section(tmp_path).races[64]
    assert (race.best, race.level, list(race.worse)) == (None, ["a", "b"], ["never"])


def test_two_seeds_and_a_lone_label_tell_nothing(store: Store, tmp_path: Path) -> None:
    seeds(store, "soon", SOON[:2])
    assert section(tmp_path).best(64) is None
    seeds(store, "never", [None] * 2)
    assert section(tmp_path).best(64) is None
    assert Verdict().best is None


def test_diverging_is_not_solving_and_failing_or_looking_ahead_is_no_race(
    store: Store, tmp_path: Path
) -> None:
    seeds(store, "soon", SOON)
    seeds(store, "diverges", SOON[:4])
    store({}, operator="diverges", seed=4, status="diverged", budget_tokens=100_000)
    seeds(store, "fails", SOON[:4])
    store({}, operator="fails", seed=4, status="out-of-memory", budget_tokens=100_000)
    seeds(store, "ahead", [9000] * 5, causal=False)
    found = section(tmp_path)
    assert found.races[64].order == ("soon", "diverges")
    assert [o.solved for o in found.solvers(64)["diverges"]] == [True] * 4 + [False]
    assert found.solvers(64)["diverges"][-1].tokens == 100_000


def test_other_lengths_are_compared_by_accuracy(store: Store, tmp_path: Path) -> None:
    for operator, tokens, far in (("soon", SOON, 0.2), ("late", LATE, 0.9)):
        for seed, t in enumerate(tokens):
            store(
                {64: 1.0, 256: far}, operator=operator, seed=seed, solved=True, train_tokens=t,
                budget_tokens=100_000,
            )  # fmt: skip
    found = section(tmp_path)
    assert found.best(64) == "soon"
    assert found.best(256) == "late"
    assert not found.verdicts[256].by_solving
    assert list(found.races) == [64]
