from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import collect
from mechbench.report.plot import _panel, plot_accuracy

Store = Callable[..., Path]
STYLES = dict.fromkeys(("hyena", "attention"), ("#0072B2", "o"))


def section(tmp_path: Path) -> Section:
    return aggregate(collect([tmp_path / "runs"])[0])[0]


def test_panel_has_the_lines_ticks_and_references(store: Store, tmp_path: Path) -> None:
    for seqlen in (64, 128):
        store({seqlen: 0.9}, seqlen=seqlen)
        store({seqlen: 0.91}, seqlen=seqlen, operator="attention")
    axis = Figure().add_subplot()
    _panel(axis, section(tmp_path), STYLES)
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "attention",
        "hyena",
        "chance (10.0%)",
        "oracle, last 16 tokens",
        "oracle, last 128 tokens",
    ]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["64", "128"]
    assert axis.get_xlabel() == "sequence length, tokens (each point trained at that length)"
    assert axis.get_title(loc="left").endswith("; 1 seed")


@pytest.mark.parametrize(
    ("options", "shaded", "said"),
    [
        ({"min_seqlen": 3}, (3, 40), "trained at 3 to 40, shaded"),
        ({}, (40 / 1.04, 40 * 1.04), "trained at 40, shaded"),
    ],
)
def test_lengths_of_training_are_shaded_where_others_are_scored(
    store: Store, tmp_path: Path, options: dict[str, int], shaded: tuple[float, float], said: str
) -> None:
    store({40: 0.9, 80: 0.5}, seqlen=40, task="parity", task_options=options)
    axis = Figure().add_subplot()
    found = section(tmp_path)
    _panel(axis, found, dict.fromkeys(found.curves, ("#0072B2", "o")))
    (patch,) = axis.patches
    (left, _), (right, _) = patch.get_bbox().get_points()
    assert (left, right) == pytest.approx(shaded)
    assert axis.get_xlabel() == f"sequence length, tokens ({said})"


def test_other_axes_shade_nothing(store: Store, tmp_path: Path) -> None:
    store({40: 0.9, 80: 0.5}, seqlen=40, task="parity")
    axis = Figure().add_subplot()
    found = section(tmp_path)
    _panel(axis, found, dict.fromkeys(found.curves, ("#0072B2", "o")), "vocab_size")
    assert not axis.patches


def test_lines_that_end_apart_are_named_at_their_ends(store: Store, tmp_path: Path) -> None:
    for seqlen in (64, 128):
        store({seqlen: 0.9}, seqlen=seqlen)
        store({seqlen: 0.5}, seqlen=seqlen, operator="attention")
    axis = Figure().add_subplot()
    _panel(axis, section(tmp_path), STYLES)
    assert axis.get_legend() is None
    assert {"hyena", "attention", "chance (10.0%)"} <= {t.get_text() for t in axis.texts}


def test_a_dollar_sign_many_labels_and_only_failures_are_drawn(
    store: Store, tmp_path: Path
) -> None:
    for i in range(12):
        store(operator_options={"text": f"$_{i}" + 40 * "x"}, eval_seqlens=(64,))
    store({}, vocab_size=40, status="error")
    sections = aggregate(collect([tmp_path / "runs"])[0])
    paths = plot_accuracy(sections, tmp_path / "plot")
    assert [path.name for path in paths] == ["plot.png", "plot.svg"]
    assert all(path.stat().st_size for path in paths)


def test_names_that_begin_with_an_underscore_are_in_the_legend(
    store: Store, tmp_path: Path
) -> None:
    names = ["_hidden", "__init__", "$x^{2$"]
    for name in names:
        for seqlen in (64, 128):
            store({seqlen: 0.9}, seqlen=seqlen, operator=name)
    axis = Figure().add_subplot()
    _panel(axis, section(tmp_path), dict.fromkeys(names, ("#0072B2", "o")))
    legend = axis.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} >= set(names)


def test_a_name_that_begins_with_an_underscore_stands_at_its_line(
    store: Store, tmp_path: Path
) -> None:
    for seqlen in (64, 128):
        store({seqlen: 0.9}, seqlen=seqlen, operator="_hidden")
    axis = Figure().add_subplot()
    _panel(axis, section(tmp_path), {"_hidden": ("#0072B2", "o")})
    assert "_hidden" in {text.get_text() for text in axis.texts}


def test_nothing_is_cut_by_the_edge_of_the_figure(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide letters, long names that differ in one letter, letters the font lacks."""
    long = "very-long-" * 12
    names = ["W" * 60, f"{long}A{long}"[:190], f"{long}B{long}"[:190], "算子", "_" * 40]
    for name in names:
        store({64: 0.9}, operator=name, task_options={"text": "M" * 300})
    figures: list[Figure] = []
    monkeypatch.setattr(
        "mechbench.report.plot.save_figure", lambda figure, stem: figures.append(figure) or []
    )
    plot_accuracy(aggregate(collect([tmp_path / "runs"])[0]), tmp_path / "plot")
    (figure,) = figures
    with warnings.catch_warnings(action="ignore"):  # glyphs
        FigureCanvasAgg(figure).draw()
        (axis,) = figure.axes
        shown = [*axis.get_yticklabels(), axis._left_title]
        boxes = [text.get_window_extent() for text in shown]
    assert len({text.get_text() for text in shown}) == len(names) + len(["chance", "16", "title"])
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= figure.bbox.y1
