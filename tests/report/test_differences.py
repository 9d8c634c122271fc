from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect

Store = Callable[..., Path]


def section(tmp_path: Path) -> Section:
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    return found


def test_differences_name_the_rarer_value(store: Store, tmp_path: Path) -> None:
    for operator in ("a", "b", "c"):
        store(operator=operator)
    store(operator="d", budget_tokens=9)
    store(operator="d", seqlen=128, budget_tokens=77)
    assert section(tmp_path).differences == (
        "Budgets differ (trained at 64): 9 for d; 1000 for all others",
    )


def test_seeds_that_were_carried_on_to_different_ends_are_told(
    store: Store, tmp_path: Path
) -> None:
    store({64: 1.0}, solved=True, budget_tokens=1000)
    store(seed=1, budget_tokens=5000)
    store(seed=2, budget_tokens=2000)
    store({}, seed=3, budget_tokens=3000, status="diverged")
    assert section(tmp_path).differences == (
        "Unsolved seeds of hyena (trained at 64) had budgets of 2000, 5000",
    )


def test_failures_say_why_once(store: Store, tmp_path: Path) -> None:
    store({64: 0.9}, eval_seqlens=(64, 4096), status="out-of-memory", reason="24 GiB")
    store({}, seed=1, status="error", reason=None)
    store(seed=2)
    assert section(tmp_path).failures == (
        "hyena at 64, seed 0: out-of-memory: 24 GiB",
        "hyena at 64, seed 1: error: no reason stored",
    )
