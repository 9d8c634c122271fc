from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.results import wilson_interval
from mechbench.spec import PROTOCOL

Store = Callable[..., Path]


def sections(tmp_path: Path, *folders: str) -> list[Section]:
    return aggregate(collect([tmp_path / folder for folder in folders or ("runs",)])[0])


def test_one_section_a_setting(store: Store, tmp_path: Path) -> None:
    store()
    store(vocab_size=30)
    store(n_layers=1)
    store(task_options={"min_distance": 32})
    assert [s.title for s in sections(tmp_path)] == [
        "recall, vocab_size 20, d_model 64, 1 layer",
        "recall, vocab_size 20, d_model 64, 2 layers",
        "recall, vocab_size 30, d_model 64, 2 layers",
        "recall, min_distance=32, vocab_size 20, d_model 64, 2 layers",
    ]


def test_options_are_in_the_order_of_their_values(store: Store, tmp_path: Path) -> None:
    for distance in (128, 64, 1000):
        store(task_options={"min_distance": distance})
    titles = [s.title for s in sections(tmp_path)]
    assert [t.split(", ")[1] for t in titles] == [
        "min_distance=64", "min_distance=128", "min_distance=1000"
    ]  # fmt: skip


def test_task_versions_are_not_compared(store: Store, tmp_path: Path) -> None:
    store(task_version=1)
    store(task_version=2)
    titles = [s.title for s in sections(tmp_path)]
    assert [t.rpartition("layers, ")[2] for t in titles] == [
        f"task version 1, protocol {PROTOCOL}",
        f"task version 2, protocol {PROTOCOL}",
    ]


def test_one_seed_keeps_its_wilson_interval_and_seeds_are_averaged(
    store: Store, tmp_path: Path
) -> None:
    store({64: 0.8})
    point = sections(tmp_path)[0].points[0]
    assert (point.ci_low, point.ci_high) == wilson_interval(800, 1000)
    store({64: 0.9}, seed=1)
    point = sections(tmp_path)[0].points[0]
    assert point.n_seeds == 2
    assert point.accuracy == pytest.approx(0.85)
    assert 0.92 < (point.ci_high or 0) < 0.95


def test_best_is_shared_by_those_that_the_paired_test_ties(store: Store, tmp_path: Path) -> None:
    store({64: 0.90}, operator="a")
    store({64: 0.89}, operator="b")
    store({64: 0.80}, operator="c")
    store({64: 0.99}, operator="ahead", causal=False)
    store({64: 0.99}, operator="lucky")
    store({}, operator="lucky", seed=1, status="error")
    section = sections(tmp_path)[0]
    assert section.best(64) == {"a", "b"}
    assert list(section.curves) == ["lucky", "a", "b", "c", "ahead"]


def test_failures_are_counted_and_never_ranked(store: Store, tmp_path: Path) -> None:
    store({64: 0.9})
    store({64: 0.9}, seed=1)
    store({64: 0.1}, seed=2, status="diverged")
    store({}, operator="attention", status="out-of-memory")
    attention, hyena = sections(tmp_path)[0].points
    assert (attention.failures, attention.accuracy) == ("out-of-memory", None)
    assert (hyena.failures, hyena.n_seeds) == ("diverged (1 of 3)", 2)
    assert hyena.accuracy == pytest.approx(0.9)
    assert not attention.ranked
    assert not hyena.ranked


def test_accuracy_scored_before_memory_ran_out_is_kept(store: Store, tmp_path: Path) -> None:
    store({64: 0.9}, eval_seqlens=(64, 4096), status="out-of-memory")
    short, long = sections(tmp_path)[0].points
    assert (short.eval_seqlen, short.accuracy, short.ranked) == (64, 0.9, False)
    assert (long.eval_seqlen, long.accuracy) == (4096, None)


def test_differences_name_the_rarer_value(store: Store, tmp_path: Path) -> None:
    for operator in ("a", "b", "c"):
        store(operator=operator)
    store(operator="d", budget_tokens=9)
    store(operator="d", seqlen=128, budget_tokens=77)
    assert sections(tmp_path)[0].differences == (
        "Budgets differ (trained at 64): 9 for d; 1000 for all others",
    )


def test_a_cell_stored_twice_counts_once(store: Store, tmp_path: Path) -> None:
    store({64: 0.2}, folder="new", date="2026-02-01T00:00:00Z")
    store({64: 0.9}, folder="old", date="2026-01-01T00:00:00Z")
    rows, warnings = collect([tmp_path / "old", tmp_path / "new"])
    assert [row.accuracy for row in rows] == [0.2]
    assert len(warnings) == 1
    assert "stored more than once" in warnings[0]
