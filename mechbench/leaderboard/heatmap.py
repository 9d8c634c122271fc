"""Accuracy over length by vocabulary, a panel for each operator and task. No torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechbench.report import style
from mechbench.report.aggregate import Point, Section
from mechbench.report.figure import save_figure
from mechbench.report.fitting import shortened, wrapped
from mechbench.report.labels import called
from mechbench.report.style import tick

_PANEL = 2.6  # inches
_WRITTEN = 400  # panels' cells in all; beyond them numbers are left to the table


def draw_heatmap(sections: Sequence[Section], stem: Path) -> list[Path]:
    """Draw STEM.png and STEM.svg: rows are tasks with their options, columns are labels.

    White: not run; a cross: failed, so without an accuracy.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows: dict[str, list[Section]] = defaultdict(list)
    for section in sections:
        vocab = called("vocab_size", section.setting.task)
        parts = [p for p in section.title.split(", ") if not p.startswith(f"{vocab} ")]
        rows[", ".join(parts)].append(section)
    labels = sorted({point.label for section in sections for point in section.points})
    names, titles = shortened(labels, 100), shortened(rows, 100)
    count = sum(len(section.points) for section in sections)
    few = len(rows) * len(labels) <= style.HEAT_MANY
    with style.applied(spines=True):
        size = (_PANEL * len(labels) + 1.6, _PANEL * len(rows) + 0.5)
        figure = Figure(figsize=size, dpi=style.HEAT_DPI if few else style.HEAT_DPI_MANY)
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(rows), len(labels), squeeze=False)
        figure.subplots_adjust(
            left=0.9 / size[0], right=1 - 0.2 / size[0], bottom=0.5 / size[1],
            top=1 - 0.5 / size[1], wspace=0.25, hspace=0.45,
        )  # fmt: skip
        for line, (title, group) in zip(axes, sorted(rows.items()), strict=True):
            for axis, label in zip(line, labels, strict=True):
                _panel(axis, group, label, count <= _WRITTEN)
            shown = wrapped(titles[title], _PANEL, style.SMALLER, 34, indent="")
            vocab = called("vocab_size", group[0].setting.task)
            line[0].set_ylabel(f"{shown}\n{vocab}", fontsize=style.SMALLER)
        for axis, label in zip(axes[0], labels, strict=True):
            axis.set_title(
                wrapped(names[label], _PANEL, style.SMALL, 34, indent=""), fontsize=style.SMALL
            )
        for axis in axes[-1]:
            axis.set_xlabel("sequence length", fontsize=style.SMALLER)
        return save_figure(figure, stem)


def _panel(axis: Any, sections: Sequence[Section], label: str, written: bool) -> None:
    lengths = sorted({n for section in sections for n in section.lengths})
    sizes = sorted({section.setting.vocab_size for section in sections})
    found: dict[tuple[int, int], Point] = {
        (section.setting.vocab_size, point.eval_seqlen): point
        for section in sections
        for point in section.points
        if point.label == label
    }
    values = [[_value(found.get((v, n))) for n in lengths] for v in sizes]
    axis.imshow(
        values, cmap=style.ACCURACY_MAP, vmin=0, vmax=1, aspect="auto", origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    axis.set_xticks(
        range(len(lengths)), [tick(n) for n in lengths], fontsize=style.SMALLEST, rotation=45
    )
    axis.set_yticks(range(len(sizes)), [str(v) for v in sizes], fontsize=style.SMALLEST)
    for y, size in enumerate(sizes):
        for x, length in enumerate(lengths):
            point = found.get((size, length))
            if point is not None and point.accuracy is None and point.failed:
                axis.plot(x, y, "x", color=style.ALARM, markersize=style.DOTS["markersize"])
            elif written and point is not None and point.accuracy is not None:
                ink = "black" if point.accuracy > 0.6 else "white"
                text = f"{100 * point.accuracy:.0f}"
                axis.text(x, y, text, ha="center", va="center", color=ink, fontsize=style.SMALLEST)


def _value(point: Point | None) -> float:
    return math.nan if point is None or point.accuracy is None else point.accuracy
