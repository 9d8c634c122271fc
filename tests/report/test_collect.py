from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.errors import ResultError
from mechbench.report.collect import collect

Store = Callable[..., Path]


def test_one_row_a_result_and_length_in_a_fixed_order(store: Store, tmp_path: Path) -> None:
    store({64: 0.9, 128: 0.5}, seed=1)
    store({64: 0.8, 128: 0.6}, seed=0)
    store({64: 0.7}, operator="attention")
    rows, warnings = collect([tmp_path / "runs"])
    assert warnings == []
    assert [(r.config.operator, r.config.seed, r.eval_seqlen, r.accuracy) for r in rows] == [
        ("attention", 0, 64, 0.7),
        ("hyena", 0, 64, 0.8),
        ("hyena", 0, 128, 0.6),
        ("hyena", 1, 64, 0.9),
        ("hyena", 1, 128, 0.5),
    ]


def test_failed_result_keeps_a_row_a_length(store: Store, tmp_path: Path) -> None:
    store({}, status="out-of-memory", eval_seqlens=(64, 128))
    rows, _ = collect([tmp_path / "runs"])
    assert [(r.eval_seqlen, r.status, r.evaluation, r.accuracy) for r in rows] == [
        (64, "out-of-memory", None, None),
        (128, "out-of-memory", None, None),
    ]


def test_weights_of_a_diverged_run_have_no_accuracy(store: Store, tmp_path: Path) -> None:
    store({64: 0.9}, status="diverged")
    (row,) = collect([tmp_path / "runs"])[0]
    assert row.evaluation is not None
    assert row.accuracy is None


def test_cell_stored_twice_counts_once_and_the_newest_wins(store: Store, tmp_path: Path) -> None:
    for folder, accuracy, date in (
        ("a", 0.9, "2026-03"),
        ("b", 0.5, "2026-02"),
        ("c", 0.4, "2025"),
    ):
        store({64: accuracy}, folder=folder, date=date)
    for paths in (["a", "b", "c"], ["c", "b", "a"]):
        rows, warnings = collect([tmp_path / name for name in paths])
        assert [row.accuracy for row in rows] == [0.9]
        assert len(warnings) == 1
        assert "is stored more than once: the newest result counts" in warnings[0]


def test_copy_of_a_result_is_no_reason_to_warn(store: Store, tmp_path: Path) -> None:
    store()
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    rows, warnings = collect([tmp_path / "runs", tmp_path / "copy", tmp_path])
    assert (len(rows), warnings) == (1, [])


def test_model_scored_at_further_lengths_later_is_one_model(store: Store, tmp_path: Path) -> None:
    store({64: 0.5}, date="2026-01")
    store({64: 0.6, 128: 0.4}, date="2026-02")
    rows, warnings = collect([tmp_path / "runs"])
    assert [(r.eval_seqlen, r.accuracy) for r in rows] == [(64, 0.6), (128, 0.4)]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"schema_version": 1', '"schema_version": 2', "no result of schema version 1"),
        ('"seqlen": 64', '"seqlem": 64', "is damaged: config.seqlen is missing"),
        ('"dense_accuracy": 0.9', '"dense_accuracy": null', "dense_accuracy is None: expected a"),
        ('"evaluations": [', '"evaluations": [3, ', "evaluations[0] is 3: expected an object"),
        ('"provenance": {', '"provenance": 3, "other": {', "provenance is 3: expected an object"),
        ('"seed": 0', '"seed": 7', "the configuration's is"),
    ],
)
def test_file_that_does_not_fit_is_left_out_with_a_warning(
    store: Store, tmp_path: Path, old: str, new: str, text: str
) -> None:
    store(seed=1)
    path = store()
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    rows, (warning,) = collect([tmp_path / "runs"])
    assert [row.config.seed for row in rows] == [1]
    assert text in warning
    assert warning.startswith("skipped: ")
    assert f"{path.parent.name}/result.json" in warning
    assert str(tmp_path) not in warning


def test_nothing_readable_names_a_reason(store: Store, tmp_path: Path) -> None:
    path = store()
    path.write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(ResultError, match=r"no readable result: skipped: .* cell_id is missing"):
        collect([tmp_path])
    with pytest.raises(ResultError, match="does not exist"):
        collect([tmp_path / "absent"])


def test_a_result_copied_under_another_seed_is_left_out(store: Store, tmp_path: Path) -> None:
    data = json.loads(store({64: 0.9}).read_text())
    for seed in range(1, 10):
        copied = {**data, "config": {**data["config"], "seed": seed}}
        path = tmp_path / "runs" / f"copy-{seed}" / "result.json"
        path.parent.mkdir()
        path.write_text(json.dumps(copied))
    rows, warnings = collect([tmp_path / "runs"])
    assert [row.config.seed for row in rows] == [0]
    assert len(warnings) == 9
    assert all("is damaged: cell_id is" in warning for warning in warnings)


def test_a_folder_with_an_odd_name_is_named_on_one_line(store: Store, tmp_path: Path) -> None:
    store()
    odd = tmp_path / "runs" / "a\nb\x1b[2J"
    odd.mkdir()
    (odd / "result.json").write_text("{")
    (warning,) = collect([tmp_path / "runs"])[1]
    assert warning.startswith("skipped: a b\\x1b[2J/result.json is corrupt: ")


def test_what_is_decided_stands_beside_what_was_carried_on(store: Store, tmp_path: Path) -> None:
    store({64: 1.0}, solved=True, budget_tokens=1000)
    store({64: 0.5}, seed=1, lr=1e-2, solved=False, budget_tokens=5000)
    store({64: 0.4}, seed=2, solved=False, budget_tokens=2000)
    store({64: 0.9}, operator="attention", solved=True, budget_tokens=700)
    store({64: 1.0}, solved=True, budget_tokens=1000, protocol=2, schedule="cosine")
    store({64: 0.6}, seed=1, budget_tokens=5000, protocol=2, schedule="cosine")
    rows, warnings = collect([tmp_path / "runs"])
    assert warnings == []
    budgets = {
        (r.config.protocol, r.config.operator, r.config.seed): r.config.budget_tokens for r in rows
    }
    assert budgets == {
        (3, "hyena", 0): 5000, (3, "hyena", 1): 5000, (3, "hyena", 2): 2000,
        (3, "attention", 0): 700, (2, "hyena", 0): 1000, (2, "hyena", 1): 5000,
    }  # fmt: skip


def test_seeds_that_were_carried_on_to_different_ends_stand_together(
    store: Store, tmp_path: Path
) -> None:
    store({64: 0.5}, seed=1, budget_tokens=5000)
    store({64: 0.4}, seed=2, budget_tokens=2000)
    # Where budgets are compared, a seed has several.
    for budget in (2000, 5000):
        store({64: 0.4}, operator="attention", seed=1, budget_tokens=budget, folder=str(budget))
    rows = collect([tmp_path / "runs", tmp_path / "2000", tmp_path / "5000"])[0]
    of = {name: [r for r in rows if r.config.operator == name] for name in ("hyena", "attention")}
    assert [r.config.budget_tokens for r in of["hyena"]] == [5000, 5000]
    assert sorted(r.data["config"]["budget_tokens"] for r in of["hyena"]) == [2000, 5000]
    assert sorted(r.config.budget_tokens for r in of["attention"]) == [2000, 5000]
