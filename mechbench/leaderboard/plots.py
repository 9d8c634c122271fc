"""The plots of a leaderboard: accuracy by length, vocabulary, options, compute; solve curves."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from mechbench.leaderboard.heatmap import draw_heatmap
from mechbench.processors import processors
from mechbench.record.results import NOT_RUN
from mechbench.report import style
from mechbench.report.aggregate import Point, Section
from mechbench.report.labels import called
from mechbench.report.plot import (
    draw_panels,
    frame_accuracy,
    legend_texts,
    plot_accuracy,
    references,
)
from mechbench.report.solving_plot import draw_solving
from mechbench.report.style import Styles, show_legend
from mechbench.report.tokens_plot import plot_tokens

_LARGE = 500  # points: from here on processes are worth their start
_ALONG = {"accuracy": plot_accuracy, "tokens": plot_tokens}  # an axis
_WHOLE = {"heatmap": draw_heatmap, "solve_curves": draw_solving}
_LENGTHS = 4  # shown beside each other along another axis


def draw(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Draw everything there is to see in `sections` into `folder`; return the files.

    What was not run stands in the tables only. Large leaderboards are drawn by several processes.

    Raises:
        ResultError: a file cannot be written.
    """
    sections = [shown for section in sections if (shown := _measured(section)).points]
    if not sections:
        return []
    axes = axes_of(sections)
    figures = [(what, axis) for what in _ALONG for axis in axes]
    figures += [("accuracy", "compute"), ("heatmap", ""), ("solve_curves", "")]
    work = [(sections, folder, *figure) for figure in figures]
    if sum(len(section.points) for section in sections) < _LARGE:
        drawn = [_draw_one(*arguments) for arguments in work]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(len(work), processors()), context) as pool:
            drawn = list(pool.map(_draw_one, *zip(*work, strict=True)))
    return [path for paths in drawn for path in paths]


def _measured(section: Section) -> Section:
    points = tuple(point for point in section.points if set(point.statuses) != {NOT_RUN})
    return dataclasses.replace(section, points=points)


def _draw_one(sections: Sequence[Section], folder: Path, what: str, axis: str) -> list[Path]:
    stem = folder / (f"{what}_vs_{axis}" if axis else what)
    if what in _WHOLE:
        return _WHOLE[what](sections, stem)
    if axis == "compute":
        return draw_panels(sections, stem, _compute_panel)
    if axis == "seqlen":
        return _ALONG[what](sections, stem)
    axis = "vocab_size" if axis == "vocab" else axis
    return _ALONG[what](along(sections, axis), stem, axis)


def axes_of(sections: Sequence[Section]) -> list[str]:
    """Return along what accuracy is worth a plot: what takes more than one value; else length."""
    found = ["seqlen"] * any(len(section.lengths) > 1 for section in sections)
    found += ["vocab"] * (len({section.setting.vocab_size for section in sections}) > 1)
    return [*found, *further_axes(sections)] or ["seqlen"]


def further_axes(sections: Sequence[Section]) -> list[str]:
    """Return the whole-number task options, and `d_model`, that take more than one value."""
    values: dict[str, set[int]] = defaultdict(set)
    for section in sections:
        for name, value in _numbers(section).items():
            values[name].add(value)
    return sorted(name for name, found in values.items() if len(found) > 1)


def _numbers(section: Section) -> dict[str, int]:
    options = json.loads(section.setting.task_options)
    whole = {k: v for k, v in options.items() if isinstance(v, int) and not isinstance(v, bool)}
    return {**whole, "d_model": section.setting.d_model}


def along(sections: Sequence[Section], axis: str) -> list[Section]:
    """Return sections whose points stand at a value of `axis`, one for all that else is equal.

    `eval_seqlen` of the points holds the value; length and settings stand in the title. Of many
    lengths four are shown, the others stand in the tables and the heat map.
    """
    lengths = sorted({length for section in sections for length in section.lengths})
    if len(lengths) > _LENGTHS:
        last = len(lengths) - 1
        lengths = [lengths[round(i * last / (_LENGTHS - 1))] for i in range(_LENGTHS)]
    groups: dict[tuple[str, int], list[tuple[int, Section]]] = defaultdict(list)
    for section in sections:
        numbers = {**_numbers(section), "vocab_size": section.setting.vocab_size}
        if axis in numbers:
            parts = section.title.split(", ")
            own = called(axis, section.setting.task)
            rest = [p for p in parts if not p.startswith((f"{own} ", f"{own}="))]
            for length in sorted(set(lengths) & set(section.lengths)):
                groups[", ".join(rest), length].append((numbers[axis], section))
    return [
        _turned(f"{title}, length {length}", length, found)
        for (title, length), found in groups.items()
    ]


def _turned(title: str, length: int, found: Sequence[tuple[int, Section]]) -> Section:
    points = [
        dataclasses.replace(point, eval_seqlen=value)
        for value, section in found
        for point in section.points
        if point.eval_seqlen == length
    ]
    return dataclasses.replace(
        found[0][1],
        title=title,
        points=tuple(sorted(points, key=lambda p: (p.label, p.eval_seqlen))),
        chance={value: section.chance[length] for value, section in found},
        shortcuts={value: section.shortcuts[length] for value, section in found},
        required_context={value: section.required_context[length] for value, section in found},
        crossing=any(section.crossing for _, section in found),
    )


def _compute_panel(axis: Any, section: Section, styles: Styles) -> None:
    """Draw accuracy against the FLOPs of training, each point a trained length."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda flops, _: f"{flops:.0e}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    names = legend_texts(section)
    for label, points in section.curves.items():
        spent = [
            (flops, point)
            for point in points
            if (flops := _flops(point)) and point.accuracy is not None
        ]
        colour, marker = styles[label]
        axis.plot(
            [flops for flops, _ in spent], [p.accuracy for _, p in spent], color=colour,
            marker=marker, linewidth=style.THIN, label=names[label], **style.DOTS,
        )  # fmt: skip
        axis.vlines(
            [flops for flops, _ in spent], [p.ci_low or 0.0 for _, p in spent],
            [p.ci_high or 0.0 for _, p in spent], color=colour, linewidth=style.THIN, zorder=2,
        )  # fmt: skip
    longest = section.lengths[-1]
    for name, colour, dashes, reached in references(section):
        if longest in reached:
            text = f"{name}, at {longest}"
            axis.axhline(
                reached[longest], color=colour, linestyle=dashes, linewidth=style.REFERENCE,
                label=text,
            )  # fmt: skip
    frame_accuracy(axis, section, "FLOPs of training (mean of seeds), a point a trained length")
    show_legend(axis)


def _flops(point: Point) -> float | None:
    return point.cost.train_flops if point.eval_seqlen == point.trained_seqlen else None
