from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from mechbench.leaderboard import plots
from mechbench.leaderboard.plots import _compute_panel, along, axes_of, draw, further_axes
from mechbench.report.aggregate import aggregate
from mechbench.report.rows import Row, rows_of
from mechbench.report.table import to_markdown

Make = Callable[..., dict[str, Any]]


def test_accuracy_along_the_vocabulary(rows: list[Row]) -> None:
    turned = along(aggregate(rows), "vocab_size")
    assert [s.title for s in turned] == [
        "recall, min_distance=0, d_model 64, 2 layers, length 64",
        "recall, min_distance=0, d_model 64, 2 layers, length 128",
    ]
    hyena = [(p.eval_seqlen, p.accuracy) for p in turned[0].points if p.label == "hyena"]
    assert hyena == [(10, pytest.approx(0.905)), (30, pytest.approx(0.905))]
    assert turned[0].chance == {10: 0.1, 30: 0.1}


def test_options_that_vary_get_a_plot_and_many_lengths_are_thinned(
    make: Make, tmp_path: Path
) -> None:
    rows = [
        row
        for distance in (0, 32, 64)
        for seqlen in range(128, 128 + 2 * 10, 2)
        for row in rows_of(make(seqlen=seqlen, task_options={"min_distance": distance, "x": 0.5}))
    ]
    sections = aggregate(rows)
    assert further_axes(sections) == ["min_distance"]
    turned = along(sections, "min_distance")
    assert [s.title.rpartition(" ")[2] for s in turned] == ["128", "134", "140", "146"]
    assert [p.eval_seqlen for p in turned[0].points] == [0, 32, 64]
    names = {p.name for p in draw(sections, tmp_path)}
    assert "accuracy_vs_min_distance.svg" in names


def test_reference_lines_stand_in_every_accuracy_plot(rows: list[Row], tmp_path: Path) -> None:
    draw(aggregate(rows), tmp_path)
    for name in ("seqlen", "vocab", "compute"):
        text = (tmp_path / f"accuracy_vs_{name}.svg").read_text()
        assert "chance (10.0%)" in text.replace("<!-- ", "")
        assert "oracle, last 16 tokens" in text


def test_processes_draw_the_same(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = draw(aggregate(rows), tmp_path)
    before = {p.name: p.read_bytes() for p in alone}
    monkeypatch.setattr(plots, "_LARGE", 0)
    assert {p.name: p.read_bytes() for p in draw(aggregate(rows), tmp_path)} == before


def test_only_what_varies_has_a_plot(make: Make) -> None:
    def axes(*changes: dict[str, Any]) -> list[str]:
        made = (make({change.get("seqlen", 64): 0.5}, **change) for change in changes)
        return axes_of(aggregate([row for one in made for row in rows_of(one)]))

    assert axes({}) == ["seqlen"]  # so that there is one
    assert axes({"seqlen": 64}, {"seqlen": 128}) == ["seqlen"]
    assert axes({"vocab_size": 10}, {"vocab_size": 30}) == ["vocab"]
    far = [{"task_options": {"min_distance": far}} for far in (0, 8)]
    assert axes(*far) == ["min_distance"]
    assert axes(*far, {"seqlen": 128, "task_options": {"min_distance": 0}}) == [
        "seqlen", "min_distance",
    ]  # fmt: skip


def test_what_was_not_run_is_not_drawn(rows: list[Row], make: Make, tmp_path: Path) -> None:
    planned = rows_of(make({}, "not-run", operator="h3") | {"provenance": {}})
    draw(aggregate([*rows, *planned]), tmp_path)
    text = (tmp_path / "accuracy_vs_seqlen.svg").read_text()
    assert "hyena" in text
    assert "h3" not in text
    assert draw(aggregate(planned), tmp_path) == []
    lines = to_markdown(aggregate(planned), []).splitlines()
    assert [line for line in lines if line.startswith("| h3")] == ["| h3 | not-run |"]  # no cost


def test_names_beginning_with_an_underscore_are_in_the_legend_of_compute(make: Make) -> None:
    rows = [row for name in ("_hidden", "W" * 60) for row in rows_of(make(operator=name))]
    (section,) = aggregate(rows)
    axis = Figure().add_subplot()
    _compute_panel(axis, section, dict.fromkeys(section.curves, ("#0072B2", "o")))
    legend = axis.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert "_hidden" in texts
    assert all("W" * 30 not in text for text in texts)


def test_the_vocabulary_axis_has_the_tasks_word(make: Make, tmp_path: Path) -> None:
    rows = [
        row
        for size in (5, 10)
        for row in rows_of(make({64: 0.5}, task="icl-functions", vocab_size=size, task_options={}))
    ]
    turned = along(aggregate(rows), "vocab_size")
    assert [s.title for s in turned] == ["icl-functions, d_model 64, 2 layers, length 64"]
    draw(aggregate(rows), tmp_path)
    text = (tmp_path / "accuracy_vs_vocab.svg").read_text()
    assert "<!-- dimensions -->" in text
    assert "vocab_size" not in text
