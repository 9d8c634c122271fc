from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechbench.leaderboard import heatmap
from mechbench.leaderboard.heatmap import draw_heatmap
from mechbench.report.aggregate import aggregate
from mechbench.report.rows import Row, rows_of


def test_a_panel_an_operator_with_its_numbers(rows: list[Row], tmp_path: Path) -> None:
    png, svg = draw_heatmap(aggregate(rows), tmp_path / "heatmap")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for shown in (
        "hyena",
        "attention",
        "vocab_size",
        "sequence length",
        "<!-- 90 -->",
        "<!-- 70 -->",
    ):
        assert shown in text


def test_each_number_stands_at_its_length_and_vocabulary(
    make: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {
        ("hyena", 10, 64): 0.91, ("hyena", 10, 128): 0.82, ("hyena", 30, 64): 0.73,
        ("hyena", 30, 128): 0.64, ("attention", 30, 64): 0.37,
    }  # fmt: skip
    rows = [
        row
        for (operator, vocab_size, seqlen), accuracy in stored.items()
        for row in rows_of(
            make({seqlen: accuracy}, operator=operator, vocab_size=vocab_size, seqlen=seqlen)
        )
    ]
    drawn: list[Any] = []
    monkeypatch.setattr(heatmap, "save_figure", lambda figure, stem: drawn.append(figure))
    draw_heatmap(aggregate(rows), Path("unused"))
    panels = {axis.get_title(): axis for axis in drawn[0].axes}
    assert list(panels) == ["attention", "hyena"]
    for operator, axis in panels.items():
        lengths, sizes = (
            [int(label.get_text()) for label in labels]
            for labels in (axis.get_xticklabels(), axis.get_yticklabels())
        )
        assert (lengths, sizes) == ([64, 128], [10, 30])
        numbers = {t.get_position(): int(t.get_text()) / 100 for t in axis.texts}
        assert {(operator, sizes[y], lengths[x]): a for (x, y), a in numbers.items()} == {
            key: accuracy for key, accuracy in stored.items() if key[0] == operator
        }
        colours = axis.images[0].get_array()
        assert {(x, y): colours[y, x] for x, y in numbers} == pytest.approx(numbers)
        assert axis.images[0].origin == "lower"


def test_a_vocabulary_goes_by_the_tasks_word(
    make: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        row
        for task in ("icl-functions", "mqar")
        for size in (5, 10)
        for row in rows_of(make({64: 0.5}, task=task, vocab_size=size, task_options={}))
    ]
    sections = aggregate(rows)
    assert [s.title.split(", ")[:2] for s in sections[1:3]] == [
        ["icl-functions", "dimensions 10"],
        ["mqar", "vocab_size 5"],
    ]
    drawn: list[Any] = []
    monkeypatch.setattr(heatmap, "save_figure", lambda figure, stem: drawn.append(figure))
    draw_heatmap(sections, Path("unused"))
    first, second = (axis.get_ylabel().split("\n") for axis in drawn[0].axes)
    assert (first[0].split(",")[0], first[-1]) == ("icl-functions", "dimensions")
    assert (second[0].split(",")[0], second[-1]) == ("mqar", "vocab_size")


def test_of_one_vocabulary_operators_are_the_rows(
    make: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {
        ("hyena", 0, 64): 0.91, ("hyena", 0, 128): 0.82, ("attention", 0, 64): 0.37,
        ("hyena", 16, 64): 0.55,
    }  # fmt: skip
    rows = [
        row
        for (operator, far, seqlen), accuracy in stored.items()
        for row in rows_of(
            make(
                {seqlen: accuracy}, operator=operator, seqlen=seqlen,
                task_options={"min_distance": far},
            )
        )
    ]  # fmt: skip
    drawn: list[Any] = []
    monkeypatch.setattr(heatmap, "save_figure", lambda figure, stem: drawn.append(figure))
    draw_heatmap(aggregate(rows), Path("unused"))
    near, far = drawn[0].axes
    assert [label.get_text() for label in near.get_yticklabels()] == ["hyena", "attention"]
    assert not far.get_yticklabels()
    assert "min_distance=16" in far.get_title().replace("\n", " ")
    shown = [{t.get_position(): t.get_text() for t in axis.texts} for axis in (near, far)]
    assert shown == [{(0, 0): "91", (1, 0): "82", (0, 1): "37"}, {(0, 0): "55"}]
    assert near.images[0].get_array()[1, 0] == pytest.approx(0.37)
    assert near.images[0].origin == "lower"  # so the first of the labels is at the top
