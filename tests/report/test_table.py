from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.table import to_csv, to_markdown

Store = Callable[..., Path]


def markdown(tmp_path: Path) -> list[str]:
    rows, warnings = collect([tmp_path / "runs"])
    return to_markdown(aggregate(rows), warnings).splitlines()


def test_table_of_two_operators_at_two_lengths(store: Store, tmp_path: Path) -> None:
    for seqlen, accuracy in ((64, 0.95), (128, 0.7)):
        store({seqlen: accuracy}, seqlen=seqlen)
        store({seqlen: 0.5}, seqlen=seqlen, operator="attention")
    store({}, seqlen=256, operator="attention", status="out-of-memory")
    lines = markdown(tmp_path)
    start = lines.index("## recall, vocab_size 20, d_model 64, 2 layers") + 2
    assert lines[start : start + 8] == [
        "| accuracy at length, each trained at that length | 64 | 128 | 256 |",
        "| --- | ---: | ---: | ---: |",
        "| hyena | **95.0** [93.5, 96.2] n=1 | **70.0** [67.1, 72.8] n=1 | - |",
        "| attention | 50.0 [46.9, 53.1] n=1 | 50.0 [46.9, 53.1] n=1 | out-of-memory |",
        "| chance | 10.0 | 10.0 | 10.0 |",
        "| best shortcut (most frequent value) | 20.0 | 20.0 | - |",
        "| oracle, last 16 tokens | 36.2 | 33.1 | - |",
        "| oracle, last 128 tokens | - | 63.1 | - |",
    ]
    assert "- attention at 256, seed 0: out-of-memory: the loss \\| is not finite" in lines
    same = next(line for line in lines if line.startswith("The same in all rows below: "))
    assert "parameters 1,234; " in same
    assert "budget, tokens 1,000" in same


def test_how_far_accuracy_holds_beyond_training_is_a_column(store: Store, tmp_path: Path) -> None:
    store({64: 0.99, 128: 0.95, 256: 0.5})
    store({64: 0.5, 128: 0.5}, operator="h3")
    rows, _ = collect([tmp_path / "runs"])
    lines = markdown(tmp_path)
    start = lines.index("## recall, vocab_size 20, d_model 64, 2 layers") + 2
    assert (
        lines[start] == "| accuracy at length, trained at 64 | 64 | 128 | 256 | above 90% up to |"
    )
    rows_shown = lines[start + 2 : start + 5]
    assert [line.split("|")[-2].strip() for line in rows_shown] == ["128", "-", ""]
    found = list(csv.DictReader(io.StringIO(to_csv(aggregate(rows)))))
    assert [line["held_up_to"] for line in found] == ["", "", "128", "128", "128"]


def test_tables_of_tasks_of_different_chance_begin_with_scaled_accuracies(
    store: Store, tmp_path: Path
) -> None:
    store({64: 0.55})
    store({64: 0.75}, task="majority", chance=0.5)
    lines = markdown(tmp_path)
    start = lines.index("## Overview")
    assert lines[start + 4] == "| accuracy (scaled) where trained | length | chance | hyena |"
    assert lines[start + 6].endswith("| 64 | 50.0 | 75.0 (50.0) |")
    rows, _ = collect([tmp_path / "runs"])
    found = list(csv.DictReader(io.StringIO(to_csv(aggregate(rows)))))
    assert [float(line["scaled_accuracy"]) for line in found] == pytest.approx([0.5, 0.5])
    assert "held_up_to" not in found[0]


def test_failures_and_lookahead_are_never_bold(store: Store, tmp_path: Path) -> None:
    store({64: 0.99}, operator="ahead", causal=False)
    store({64: 0.98}, operator="lucky")
    store({64: 0.97}, operator="lucky", seed=1, status="diverged")
    store({64: 0.5}, operator="plain")
    store({64: 0.2}, operator="worse")
    text = "\n".join(markdown(tmp_path))
    assert "| ahead (non-causal) | 99.0 [" in text
    assert "] n=1; diverged (1 of 2) |" in text
    assert "| plain | **50.0** [" in text


def test_pipes_in_labels_do_not_break_the_table(store: Store, tmp_path: Path) -> None:
    store(operator_options={"filter": "a|b"})
    store(operator_options={"filter": "c"})
    assert any(line.startswith("| hyena (filter=a\\|b) |") for line in markdown(tmp_path))


def test_csv_has_every_point(store: Store, tmp_path: Path) -> None:
    store({64: 0.9, 128: 0.8})
    store({64: 0.5, 128: 0.79}, operator="h3")
    store({}, operator="attention", status="error")
    rows, _ = collect([tmp_path / "runs"])
    lines = list(csv.DictReader(io.StringIO(to_csv(aggregate(rows)))))
    assert [(r["label"], r["eval_seqlen"], r["accuracy"], r["best"]) for r in lines] == [
        ("attention", "64", "", "False"),
        ("h3", "64", "0.5", "False"),
        ("h3", "128", "0.79", "False"),
        ("hyena", "64", "0.9", "True"),
        ("hyena", "128", "0.8", "False"),
    ]
    assert [r["n_error"] for r in lines] == ["1", "0", "0", "0", "0"]
    assert [r["n_unclear"] for r in lines] == ["0", "1", "1", "1", "1"]


HOSTILE = "<script>alert(1)</script>[a](http://x)|`b`\n\u202e"


def test_what_files_say_is_shown_as_it_is(store: Store, tmp_path: Path) -> None:
    device = {"device": HOSTILE, "date": "2026"}
    store({64: 0.9}, operator="=cmd|' /C calc'!A0", provenance=device)
    store({64: 0.8}, operator=HOSTILE, batch_size=32, provenance=device)
    store({}, operator="lost", status="error", reason=f"# {HOSTILE}")
    path = store({64: 0.7}, operator="best")
    data = json.loads(path.read_text())
    data["evaluations"][0]["shortcuts"] = {HOSTILE: 1.0}
    path.write_text(json.dumps(data))
    text = "\n".join(markdown(tmp_path))
    shown = r"&lt;script&gt;alert(1)&lt;/script&gt;\[a\](http\://x)\|\`b\` \\u202e"
    assert text.count(shown) >= 7  # label, cost's label, devices, shortcut, difference, failure
    for harmful in ("<script>", "](http:", "\u202e", "`b`"):
        assert harmful not in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {3, 9}
    lines = list(csv.DictReader(io.StringIO(to_csv(aggregate(collect([tmp_path])[0])))))
    assert {"'=cmd|' /C calc'!A0", "best", "lost"} < {line["label"] for line in lines}


def test_outputs_that_are_not_finite_are_a_failure_of_their_length(
    store: Store, tmp_path: Path
) -> None:
    for seed in (0, 1, 2):
        path = store({64: 0.9, 1024: 0.0}, seed=seed, operator="ssm")
        data = json.loads(path.read_text())
        if seed:
            data["evaluations"][1]["non_finite"] = 12
        path.write_text(json.dumps(data))
    store({64: 0.5, 1024: 0.4}, operator="other")
    lines = markdown(tmp_path)
    row = next(line for line in lines if line.startswith("| ssm |"))
    assert row.split(" | ")[1].startswith("**90.0**")
    assert row.endswith("] n=1; nan at 1024 (2 of 3) | - |")  # 90.0 is not above 90
    assert row.split(" | ")[2].startswith("0.0 [")  # of the one seed whose outputs are numbers
    failed = "- ssm at 64, seed 1: nan at 1024: 12 of 1000 scored outputs not finite"
    assert failed in lines
    (section,) = aggregate(collect([tmp_path / "runs"])[0])
    assert section.verdicts[1024].order == ("other",)
    found = {
        (line["label"], line["eval_seqlen"]): (line["n_ok"], line["n_nan"], line["ranked"])
        for line in csv.DictReader(io.StringIO(to_csv([section])))
    }
    assert found["ssm", "64"] == ("3", "0", "True")
    assert found["ssm", "1024"] == ("1", "2", "False")


def test_a_length_without_a_finite_output_has_no_accuracy(store: Store, tmp_path: Path) -> None:
    path = store({64: 0.2})
    data = json.loads(path.read_text())
    data["evaluations"][0]["non_finite"] = 1
    path.write_text(json.dumps(data))
    assert "| hyena | nan at 64 |" in markdown(tmp_path)
