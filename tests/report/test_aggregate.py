from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.record.config import PROTOCOL
from mechbench.record.results import wilson_interval
from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.report.rows import rows_of

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


def test_nothing_is_best_that_the_paired_test_ties(store: Store, tmp_path: Path) -> None:
    store({64: 0.90, 128: 0.9}, operator="a")
    store({64: 0.89, 128: 0.8}, operator="b")
    store({64: 0.80}, operator="c")
    store({64: 0.99}, operator="ahead", causal=False)
    store({64: 0.99}, operator="lucky")
    store({}, operator="lucky", seed=1, status="error")
    section = sections(tmp_path)[0]
    a, b, c = "abc"
    assert section.best(64) is None
    assert section.verdicts[64].order == (a, b, c)
    assert list(section.verdicts[64].worse) == [c]
    assert section.best(128) == a
    assert [label.split(",")[0] for label in section.curves] == ["lucky", "a", "b", "c", "ahead"]
    assert section.races == {}


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


def test_a_cell_stored_twice_counts_once(store: Store, tmp_path: Path) -> None:
    store({64: 0.2}, folder="new", date="2026-02-01T00:00:00Z")
    store({64: 0.9}, folder="old", date="2026-01-01T00:00:00Z")
    rows, warnings = collect([tmp_path / "old", tmp_path / "new"])
    assert [row.accuracy for row in rows] == [0.2]
    assert len(warnings) == 1
    assert "stored more than once" in warnings[0]


def test_the_same_seed_with_and_without_leave_to_look_ahead_counts_once(
    store: Store, tmp_path: Path
) -> None:
    store({64: 0.5}, date="2026-01")
    store({64: 0.9}, date="2026-02", allow_noncausal=True)
    store({64: 0.7}, seed=1)
    (point,) = sections(tmp_path)[0].points
    assert (point.n_seeds, point.cost.results, sorted(point.counts)) == (2, 2, [0, 1])
    assert point.accuracy == pytest.approx(0.8)  # the newest of seed 0


def test_rows_that_were_not_compared_count_a_seed_once_too(store: Store, tmp_path: Path) -> None:
    """As of a results.csv that holds both."""
    paths = [store(), store({64: 0.5}, allow_noncausal=True, date="2025"), store(seed=1)]
    rows = [row for path in paths for row in rows_of(json.loads(path.read_text()))]
    for order in (rows, rows[::-1]):
        (point,) = aggregate(order)[0].points
        assert (point.n_seeds, point.cost.results) == (2, 2)
        assert point.accuracy == pytest.approx(0.9)


def test_rates_that_print_the_same_are_two_rows(store: Store, tmp_path: Path) -> None:
    store({64: 0.9}, lr=0.001)
    store({64: 0.5}, lr=0.0010000004, seed=1)
    (section,) = sections(tmp_path)
    assert {p.label: (p.n_seeds, p.accuracy, p.cost.lr) for p in section.points} == {
        "hyena (lr=0.001)": (1, 0.9, "0.001"),
        "hyena (lr=0.0010000004)": (1, 0.5, "0.0010000004"),
    }
    assert len(section.curves) == 2
    assert (
        "`lr` differs (trained at 64): 0.001 for hyena (lr=0.001); 0.0010000004 for"
        in (section.differences[0])
    )


def test_settings_that_print_the_same_are_two_sections(store: Store, tmp_path: Path) -> None:
    for noise in (0.1, 0.1000000001, 0.2):
        store(task_options={"noise": noise})
    assert [s.title.split(", ")[1] for s in sections(tmp_path)] == [
        "noise=0.1", "noise=0.1000000001", "noise=0.2"
    ]  # fmt: skip


def test_settings_named_like_each_other_keep_titles_of_their_own(
    store: Store, tmp_path: Path
) -> None:
    store(task_options={"a": "1, b=2"})
    store(task_options={"a": "1", "b": "2"})
    titles = [s.title for s in sections(tmp_path)]
    assert len(set(titles)) == 2
    assert titles[1] == f"{titles[0]} #2"


def test_an_older_protocol_is_named_even_alone(store: Store, tmp_path: Path) -> None:
    store({64: 0.9})
    (section,) = aggregate(collect([tmp_path])[0])
    assert "protocol" not in section.title
    store({64: 0.9}, operator="attention", task="mqar", protocol=PROTOCOL - 1, schedule="cosine")
    titles = [section.title for section in aggregate(collect([tmp_path])[0])]
    assert [f"protocol {n}" in title for n, title in zip((2, 3), titles, strict=True)] == [True] * 2


def test_protocols_are_shown_apart(store: Store, tmp_path: Path) -> None:
    store({64: 0.9}, protocol=1)
    store({64: 0.5}, protocol=2, seed=1)
    found = sections(tmp_path)
    assert [(s.title.rpartition(", ")[2], s.points[0].n_seeds) for s in found] == [
        ("protocol 1", 1), ("protocol 2", 1)
    ]  # fmt: skip
