"""Accuracy over length, by vocabulary and operator. No torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mechbench.report import style
from mechbench.report.aggregate import Point, Section
from mechbench.report.figure import save_figure
from mechbench.report.fitting import inches, shortened, wrapped
from mechbench.report.labels import called
from mechbench.report.style import tick

_PANEL = 2.6  # inches
_CELL, _LINE, _NARROW, _WIDE = 0.45, 0.24, 1.3, 9.0  # inches, where labels are rows
_WRITTEN = 400  # panels' cells in all; beyond them numbers are left to the table


def draw_heatmap(sections: Sequence[Section], stem: Path) -> list[Path]:
    """Draw STEM.png and STEM.svg: a row of panels a task with its options, a panel a label.

    Where every task has one vocabulary only, a panel a task, in which labels are rows. White: not
    run; a cross: failed, so without an accuracy.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows: dict[str, list[Section]] = defaultdict(list)
    for section in sections:
        vocab = called("vocab_size", section.setting.task)
        parts = [p for p in section.title.split(", ") if not p.startswith(f"{vocab} ")]
        rows[", ".join(parts)].append(section)
    labels = sorted({point.label for section in sections for point in section.points})
    written = sum(len(section.points) for section in sections) <= _WRITTEN
    one = all(len({s.setting.vocab_size for s in group}) == 1 for group in rows.values())
    with style.applied(spines=True):
        figure = (_by_task if one else _by_label)(rows, labels, written)
        FigureCanvasAgg(figure)
        return save_figure(figure, stem)


def _by_task(rows: Mapping[str, Sequence[Section]], labels: Sequence[str], written: bool) -> Any:
    """Return a figure with a panel a task, side by side: labels against lengths."""
    from matplotlib.figure import Figure

    names, titles = shortened(labels, 60), shortened(rows, 150)
    width = max(_NARROW, _CELL * max(len(_lengths(group)) for group in rows.values()))
    columns = max(1, min(len(rows), int(_WIDE / width)))
    lines = -(-len(rows) // columns)
    beside = max(inches(name, style.SMALLER) for name in names.values()) + 0.2
    size = beside + (width + 0.2) * columns, lines * (_LINE * len(labels) + 1.2)
    few = len(rows) <= style.MANY
    figure = Figure(figsize=size, dpi=style.DPI if few else style.DPI_MANY)
    axes = figure.subplots(lines, columns, squeeze=False)
    figure.subplots_adjust(
        left=beside / size[0], right=1 - 0.1 / size[0], bottom=0.5 / size[1],
        top=1 - 0.7 / size[1], wspace=0.2 / width, hspace=1.2 / (_LINE * len(labels)),
    )  # fmt: skip
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    upwards = list(reversed(labels))
    for number, (axis, (title, group)) in enumerate(zip(axes.flat, rows.items(), strict=False)):
        found = {
            (upwards.index(point.label), point.eval_seqlen): point
            for section in group
            for point in section.points
        }
        _cells(axis, found, len(labels), _lengths(group), written)
        shown = [names[label] for label in upwards] if number % columns == 0 else []
        axis.set_yticks(range(len(shown)), shown, fontsize=style.SMALLER)
        axis.set_title(
            wrapped(titles[title], width, style.SMALLEST, 60, indent=""), fontsize=style.SMALLEST
        )
        axis.set_xlabel("sequence length", fontsize=style.SMALLER)
    return figure


def _by_label(rows: Mapping[str, Sequence[Section]], labels: Sequence[str], written: bool) -> Any:
    """Return a figure with a row of panels a task, a panel a label: vocabulary against length."""
    from matplotlib.figure import Figure

    names, titles = shortened(labels, 100), shortened(rows, 100)
    few = len(rows) * len(labels) <= style.HEAT_MANY
    size = (_PANEL * len(labels) + 1.6, _PANEL * len(rows) + 0.5)
    figure = Figure(figsize=size, dpi=style.HEAT_DPI if few else style.HEAT_DPI_MANY)
    axes = figure.subplots(len(rows), len(labels), squeeze=False)
    figure.subplots_adjust(
        left=0.9 / size[0], right=1 - 0.2 / size[0], bottom=0.5 / size[1],
        top=1 - 0.5 / size[1], wspace=0.25, hspace=0.45,
    )  # fmt: skip
    for line, (title, group) in zip(axes, rows.items(), strict=True):
        sizes = sorted({section.setting.vocab_size for section in group})
        for axis, label in zip(line, labels, strict=True):
            found = {
                (sizes.index(section.setting.vocab_size), point.eval_seqlen): point
                for section in group
                for point in section.points
                if point.label == label
            }
            _cells(axis, found, len(sizes), _lengths(group), written)
            axis.set_yticks(range(len(sizes)), [str(v) for v in sizes], fontsize=style.SMALLEST)
        shown = wrapped(titles[title], _PANEL, style.SMALLER, 34, indent="")
        vocab = called("vocab_size", group[0].setting.task)
        line[0].set_ylabel(f"{shown}\n{vocab}", fontsize=style.SMALLER)
    for axis, label in zip(axes[0], labels, strict=True):
        axis.set_title(
            wrapped(names[label], _PANEL, style.SMALL, 34, indent=""), fontsize=style.SMALL
        )
    for axis in axes[-1]:
        axis.set_xlabel("sequence length", fontsize=style.SMALLER)
    return figure


def _lengths(sections: Sequence[Section]) -> list[int]:
    return sorted({n for section in sections for n in section.lengths})


def _cells(
    axis: Any,
    found: Mapping[tuple[int, int], Point],
    lines: int,
    lengths: Sequence[int],
    written: bool,
) -> None:
    """Draw accuracies by line and length."""
    values = [[_value(found.get((y, n))) for n in lengths] for y in range(lines)]
    axis.imshow(
        values, cmap=style.ACCURACY_MAP, vmin=0, vmax=1, aspect="auto", origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    axis.set_xticks(
        range(len(lengths)), [tick(n) for n in lengths], fontsize=style.SMALLEST, rotation=45
    )
    for y in range(lines):
        for x, length in enumerate(lengths):
            point = found.get((y, length))
            if point is not None and point.accuracy is None and point.failed:
                axis.plot(x, y, "x", color=style.ALARM, markersize=style.DOTS["markersize"])
            elif written and point is not None and point.accuracy is not None:
                ink = "black" if point.accuracy > 0.6 else "white"
                text = f"{100 * point.accuracy:.0f}"
                axis.text(x, y, text, ha="center", va="center", color=ink, fontsize=style.SMALLEST)


def _value(point: Point | None) -> float:
    return math.nan if point is None or point.accuracy is None else point.accuracy
