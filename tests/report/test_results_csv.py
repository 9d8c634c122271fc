from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mechbench.errors import ResultError
from mechbench.record.config import Config
from mechbench.record.outcome import CellOutcome, outcome_of
from mechbench.report import results_csv as store
from mechbench.report.results_csv import COLUMNS, read_rows, write_rows
from mechbench.report.rows import Row, rows_of

STORED = sorted((Path(__file__).parents[2] / "leaderboards").glob("*/results.csv"))
Make = Callable[..., dict[str, Any]]


def test_everything_comes_back_exactly(make: Make, rows: list[Row], tmp_path: Path) -> None:
    odd = make({64: 1 / 3, 128: 0.5}, operator_options={"a": None, "b": [1, 2.5]}, lr=0.1 + 0.2)
    path = tmp_path / "results.csv"
    write_rows(path, [*rows, *rows_of(odd)])
    read = {(r.data["cell_id"], r.eval_seqlen): r for r in read_rows(path)}
    assert len(read) == len(rows) + 2
    for row in (*rows, *rows_of(odd)):
        got = read[row.data["cell_id"], row.eval_seqlen]
        assert (got.config, got.evaluation, got.status) == (row.config, row.evaluation, row.status)
        known = {k: v for k, v in row.data.items() if k != "provenance"}
        assert {k: got.data[k] for k in known} == known
        assert {k: v for k, v in got.data["provenance"].items() if v} == {
            k: v for k, v in row.data["provenance"].items() if v
        }


def test_order_of_the_rows_does_not_matter(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_rows(path, rows)
    before = path.read_bytes()
    random.Random(0).shuffle(rows)
    write_rows(path, rows)
    assert path.read_bytes() == before
    write_rows(path, read_rows(path))
    assert path.read_bytes() == before


def test_plugins_are_stored_without_their_folders(make: Make, tmp_path: Path) -> None:
    data = make(plugins={"/somewhere/private/op.py": "ab12"})
    path = tmp_path / "results.csv"
    write_rows(path, rows_of(data))
    assert "private" not in path.read_text()
    (row,) = read_rows(path)
    assert row.config.cell_id == data["cell_id"]


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "'=x", "'x", "-1.5", "x=1"])
def test_no_text_is_a_formula_and_all_come_back(make: Make, tmp_path: Path, text: str) -> None:
    data = make({}, "error") | {"reason": text}
    path = tmp_path / "results.csv"
    write_rows(path, rows_of(data))
    with path.open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["reason"][0] not in "=+@"
    assert not line["reason"].startswith("-x")
    assert read_rows(path)[0].data["reason"] == text


def test_outcomes_come_back_and_tables_from_before_have_none(make: Make, tmp_path: Path) -> None:
    told = CellOutcome("censored", 9000, 0.995, 0.5, 512, 40, 0.1, 0.05, 0.2, "rising")
    data = make({64: 0.5, 128: 0.4}) | {"outcome": told.to_dict()}
    path = tmp_path / "results.csv"
    write_rows(path, [*rows_of(data), *rows_of(make(seed=1))])
    outcomes = {row.config.seed: outcome_of(row.data) for row in read_rows(path)}
    assert outcomes == {0: told, 1: CellOutcome("censored", 9000, accuracy=0.5)}
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        write = csv.DictWriter(file, [c for c in COLUMNS if c != "outcome"])
        write.writeheader()
        write.writerows({k: v for k, v in line.items() if k != "outcome"} for line in lines)
    assert {(outcome_of(row.data) or told).trend for row in read_rows(path)} == {None}


def test_outputs_that_are_not_finite_are_not_forgotten(make: Make, tmp_path: Path) -> None:
    data = make({64: 0.0, 128: 0.5})
    data["evaluations"][0]["non_finite"] = 7
    path = tmp_path / "results.csv"
    write_rows(path, rows_of(data))
    evaluations = [row.evaluation for row in read_rows(path)]
    assert [e.get("non_finite") for e in evaluations if e] == [7, None]


def test_schema_is_documented() -> None:
    assert {f.name for f in fields(Config)} < set(COLUMNS)
    text = store.__doc__ or ""
    absent = [c for c in COLUMNS if c not in text and c not in Config.__dataclass_fields__]
    assert absent == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ci_low", "ci_lo", "columns missing or unknown: ci_lo, ci_low"),
        ("0.9,", "0.9", "results.csv:2: "),
        (",64,", ",sixty,", "results.csv:2: "),
        ("\n1,", "\n2,", "results.csv:2: schema version 2: expected 1"),
        (",recall,", ",induction,", "is damaged: cell [0-9a-f]+: cell_id is"),
        (",900,0.9,", ",900,0.95,", "is damaged: cell .*accuracy is 0.95: 900 of 1000"),
        (",900,0.9,", ",9000,9.0,", "is damaged: cell .*accuracy is 9.0: expected"),
    ],
)
def test_damage_is_named_with_its_line(
    make: Make, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "results.csv"
    write_rows(path, rows_of(make()))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ResultError, match=message):
        read_rows(path)
    with pytest.raises(ResultError, match="cannot be read"):
        read_rows(tmp_path / "absent.csv")


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.parent.name)
def test_stored_leaderboards_are_read(path: Path) -> None:
    rows = read_rows(path)
    assert {row.status for row in rows} >= {"ok"}
    assert all(row.config.cell_id == row.data["cell_id"] for row in rows)
