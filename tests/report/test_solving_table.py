from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.record.outcome import CellOutcome
from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.report.solving_table import HEAD, flat, solving_lines, verdicts
from mechbench.report.table import to_csv, to_markdown

Store = Callable[..., Path]
SOON = [10_000, 11_000, 12_000, 13_000, 14_000]


def solved(store: Store, operator: str, tokens: list[int], first: int = 0, **settings: Any) -> None:
    for seed, t in enumerate(tokens, first):
        store(
            {64: 1.0}, operator=operator, seed=seed, solved=True, train_tokens=t,
            budget_tokens=100_000, **settings,
        )  # fmt: skip


def given_up(store: Store, operator: str, trends: list[str | None], first: int = 0) -> None:
    for seed, trend in enumerate(trends, first):
        outcome = CellOutcome("censored", 99_000, 0.995, 0.3, 512, 40, 0.0, -0.1, 0.1, trend)
        store(
            {64: 0.3}, operator=operator, seed=seed, train_tokens=99_000, budget_tokens=100_000,
            outcome=outcome.to_dict(),
        )  # fmt: skip


@pytest.fixture
def section(store: Store, tmp_path: Path) -> Section:
    solved(store, "soon", SOON)
    solved(store, "half", SOON[:3])
    given_up(store, "half", ["rising", None], 3)
    given_up(store, "never", ["rising", "flat", "flat", "flat"])
    store({}, operator="never", seed=4, status="diverged", budget_tokens=100_000)
    store({}, operator="broken", status="error", budget_tokens=100_000)
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    return found


def test_a_line_an_operator(section: Section) -> None:
    head, *lines = solving_lines(section, {label: label.upper() for label in section.curves})
    assert head == list(HEAD)
    shown = {line[0]: line[1:] for line in lines}
    assert shown["SOON"] == [
        "64", "5 of 5 [56.6, 100.0]", "12 K [10 K, 14 K]", "1.2e+10", "1.5", "-", "-",
    ]  # fmt: skip
    assert shown["HALF"][1:3] == ["3 of 5 [23.1, 88.2]", "12 K [10 K, ∞]"]
    assert shown["HALF"][5:] == ["30.0 [27.5, 32.8] n=2", "1 rising, 1 unclear"]
    assert shown["NEVER"][1:3] == ["0 of 5 [0.0, 43.4]", "> 99 K"]
    assert shown["NEVER"][6] == "1 rising, 3 flat, 1 diverged"
    assert shown["BROKEN"] == ["64", "1 failed", *["-"] * 5]


def test_only_what_is_told_from_all_others_is_bold(store: Store, tmp_path: Path) -> None:
    solved(store, "soon", SOON)
    solved(store, "late", [5 * t for t in SOON])
    text = to_markdown(aggregate(collect([tmp_path / "runs"])[0]), [])
    assert "| **12 K [10 K, 14 K]** |" in text
    assert "| **100.0** [" in text
    assert (
        "- Trained at 64: **soon** solves soonest; later, by log-rank tests: late (p 0.001" in text
    )
    solved(store, "as soon", [t + 100 for t in SOON])
    text = to_markdown(aggregate(collect([tmp_path / "runs"])[0]), [])
    assert "| **" not in text
    words = "do not tell which of these solves soonest: soon, as soon. Later than the first of"
    assert f"- Trained at 64: the tests {words} them: late (p 0.00" in text


def test_words_only_where_something_is_solved_and_compared(store: Store, tmp_path: Path) -> None:
    given_up(store, "a", [None] * 3)
    given_up(store, "b", [None] * 3)
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    assert verdicts(found) == []
    solved(store, "a", [10_000], 3)
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    assert len(verdicts(found)) == 1


def test_names_in_words_are_markdown(store: Store, tmp_path: Path) -> None:
    solved(store, "<b>", SOON)
    solved(store, "[x](y)", [5 * t for t in SOON])
    (found,) = aggregate(collect([tmp_path / "runs"])[0])
    (line,) = verdicts(found)
    assert "<b>" not in line
    assert "[x](y)" not in line


def test_columns_of_the_csv(section: Section) -> None:
    lines = {line["label"]: line for line in csv.DictReader(io.StringIO(to_csv([section])))}
    soon, never = lines["soon"], lines["never"]
    assert (soon["best"], soon["solved"], soon["n_trained"]) == ("False", "5", "5")  # half ties it
    assert [float(soon[f"solve_tokens{end}"]) for end in ("", "_low", "_high")] == [
        12_000, 10_000, 14_000
    ]  # fmt: skip
    assert float(never["solve_tokens"]) == math.inf
    assert [never[f"n_{trend}"] for trend in ("rising", "flat", "unclear")] == ["1", "3", "0"]
    assert float(never["unsolved_accuracy"]) == pytest.approx(0.3)
    assert lines["broken"]["solve_tokens"] == lines["broken"]["share_solved"] == ""
    broken = next(p for p in section.points if p.label == "broken")
    assert flat(broken.solving)["n_trained"] == 0
