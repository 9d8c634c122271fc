"""Accuracy versus sequence length or another axis, one panel a section. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mechbench.report import style
from mechbench.report.aggregate import Point, Section
from mechbench.report.figure import save_figure
from mechbench.report.fitting import shortened, wrapped
from mechbench.report.held import trained_at, trained_range
from mechbench.report.labels import called
from mechbench.report.lone_panel import lone_panel
from mechbench.report.style import Styles, line_label, line_text, show_legend, tick
from mechbench.report.table import WINDOWS, row_label

# Inches of a panel and its margins. Fixed, as matplotlib's own layout gives up on long legends.
_WIDTH, _LEFT, _RIGHT, _BOTTOM, _TOP = 8.0, 0.8, 2.75, 0.65, 0.65
_TITLE_IN = 7.0  # inches that its text may take, hinting left out
_TITLE_LINES = 3
APART, SPREAD = 2.5, 18.0  # points between neighbouring curves, and between the outer ones
_EDGE = 1.3  # times the last length is the end of the axis: room for what stands beside it
_LABEL_GAP = 0.06  # of the y axis: direct labels that lie closer would touch


def plot_accuracy(sections: Sequence[Section], stem: Path, x_label: str = "") -> list[Path]:
    """Draw the sections as STEM.png and STEM.svg, the same bytes for the same input.

    Args:
        sections: one a panel; `eval_seqlen` of their points is the x axis.
        stem: path of the files without suffix.
        x_label: what the x axis shows, if it is not the sequence length.

    Raises:
        ResultError: a file cannot be written.
    """

    def panel(axis: Any, section: Section, styles: Styles) -> None:
        _panel(axis, section, styles, x_label)

    return draw_panels(sections, stem, panel)


def draw_panels(
    sections: Sequence[Section], stem: Path, panel: Callable[[Any, Section, Styles], None]
) -> list[Path]:
    """Lay out a panel for each section, with the same style for a label in all of them.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    styles = style.styles(sorted({p.label for section in sections for p in section.points}))
    columns = 1 if len(sections) == 1 else 2
    rows = math.ceil(len(sections) / columns)
    height = max(5.0, *(_legend_height(section) for section in sections))
    size = _WIDTH * columns, height * rows
    with style.applied():
        dpi = style.DPI if len(sections) <= style.MANY else style.DPI_MANY
        figure = Figure(figsize=size, dpi=dpi)
        FigureCanvasAgg(figure)
        for i, section in enumerate(sections):
            row, column = divmod(i, columns)
            x, y = _WIDTH * column + _LEFT, height * (rows - 1 - row) + _BOTTOM
            wide, high = _WIDTH - _LEFT - _RIGHT, height - _BOTTOM - _TOP
            box = (x / size[0], y / size[1], wide / size[0], high / size[1])
            panel(figure.add_axes(box), section, styles)
        return save_figure(figure, stem)


def _legend_height(section: Section) -> float:
    """Return the inches that a panel needs for the legend beside it."""
    lines = sum(text.count("\n") + 1 for text in legend_texts(section).values())
    return 0.17 * (lines + 4) + 0.07 * len(section.curves) + _TOP


def legend_texts(section: Section) -> dict[str, str]:
    """Return {label: label of its line}, wrapped to fit beside a panel; `show_legend` draws it."""
    short = shortened(section.curves)
    texts = {}
    for label, points in section.curves.items():
        whole = short[label] + row_label(points).removeprefix(label)
        texts[label] = line_label(wrapped(whole, style.LEGEND_IN, style.LABEL, 36))
    return texts


def _panel(axis: Any, section: Section, styles: Styles, x_label: str = "") -> None:
    lengths = section.lengths
    if len(lengths) == 1:
        lone_panel(axis, section, styles, legend_texts(section), references(section))
        axis.set_xlabel(f"test accuracy at {lone_label(section, x_label)}")
        give_heading(axis, section)
        return
    left, right = scale_lengths(axis, lengths)
    frame_accuracy(axis, section, called(x_label, section.setting.task) or length_label(section))

    if not x_label and (trained := trained_range(section)) is not None:
        _shade(axis, *trained)
    for name, colour, dashes, reached in references(section):
        values = [reached.get(n, math.nan) for n in lengths]
        xs: Sequence[float] = lengths
        if sum(not math.isnan(value) for value in values) == 1:  # a line needs two ends
            at = next(i for i, value in enumerate(values) if not math.isnan(value))
            xs, values = [max(left, xs[at] / 2), min(right, xs[at] * 2)], [values[at]] * 2
        axis.plot(xs, values, color=colour, linestyle=dashes, linewidth=style.REFERENCE, label=name)
    failed = False
    names = legend_texts(section)
    shifts = style.side_by_side(len(names), APART, SPREAD)
    for (label, points), shift in zip(section.curves.items(), shifts, strict=True):
        _curve(axis, points, shift, styles[label], names[label])
        failed |= any(point.accuracy is None for point in points)
    if failed:
        text = "at 0: failed, no accuracy"
        axis.plot([], [], "x", color=style.GREY, label=text, markersize=style.CROSS)
    _name_lines(axis, right)


def scale_lengths(axis: Any, lengths: Sequence[int]) -> tuple[float, float]:
    """Make the x axis one of lengths, or of distances from 0 on; return its ends."""
    from matplotlib.ticker import NullLocator

    left, right = lengths[0] / _EDGE, lengths[-1] * _EDGE
    if lengths[0] > 0:
        axis.set_xscale("log", base=2)
    else:
        least = min((n for n in lengths if n > 0), default=1)
        axis.set_xscale("symlog", base=2, linthresh=least, linscale=0.5)
        left, right = -least / 3, max(right, 1)
    axis.set_xlim(left, right)
    axis.set_xticks(lengths, [tick(n) for n in lengths])
    axis.xaxis.set_minor_locator(NullLocator())
    return left, right


def _shade(axis: Any, least: int, most: int) -> None:
    """Shade the lengths of training; one length alone is as wide as a marker."""
    around = 1.04 if least == most else 1.0
    axis.axvspan(least / around, most * around, color=style.SHADE, linewidth=0, zorder=0)


def _curve(axis: Any, points: list[Point], shift: float, look: tuple[str, str], name: str) -> None:
    from matplotlib.transforms import offset_copy

    colour, marker = look
    place = offset_copy(axis.transData, axis.figure, x=shift, units="points")
    shown = [p for p in points if p.accuracy is not None]
    xs, ys = [p.eval_seqlen for p in shown], [p.accuracy or 0.0 for p in shown]
    lows, highs = [p.ci_low or 0.0 for p in shown], [p.ci_high or 0.0 for p in shown]
    causal = all(p.causal is not False for p in points)
    axis.plot(
        xs, ys, color=colour, marker=marker, linewidth=style.CURVE, label=name,
        linestyle=style.SURE if causal else style.UNSURE, transform=place, **style.DOTS,
    )  # fmt: skip
    if len(shown) == 1:
        errors = [[max(0.0, ys[0] - lows[0])], [max(0.0, highs[0] - ys[0])]]
        axis.errorbar(
            xs, ys, errors, color=colour, capsize=style.CAP, linestyle="none", zorder=2,
            transform=place,
        )  # fmt: skip
    else:
        axis.fill_between(
            xs, lows, highs, color=colour, alpha=style.BAND_ALPHA, linewidth=0, transform=place
        )
    lost = [p.eval_seqlen for p in points if p.accuracy is None]
    axis.plot(
        lost, [0] * len(lost), "x", color=colour, markersize=style.CROSS, clip_on=False, zorder=4,
        transform=place,
    )  # fmt: skip


def frame_accuracy(axis: Any, section: Section, x_label: str) -> None:
    """Give an axis what every accuracy plot has: the scale of accuracies, a grid and a title."""
    axis.set_ylim(0, style.HIGHEST)
    axis.set_yticks(*style.PERCENTS)
    style.grid(axis)
    axis.set_ylabel("test accuracy")
    axis.set_xlabel(x_label)
    give_heading(axis, section)


def give_heading(axis: Any, section: Section) -> None:
    """Write the section's title over a panel."""
    axis.set_title(_fitted(_title(section)), fontsize=style.TITLE, loc="left")


def references(section: Section) -> list[tuple[str, str, Any, dict[int, float]]]:
    """Return name, colour, dashes and accuracy by length of what no operator is needed for."""
    chances = sorted({f"{value:.1%}" for value in section.chance.values()})
    chance = f"chance ({_span(chances)})"
    lines: list[tuple[str, str, Any, dict[int, float]]] = [
        (chance, style.GREY, style.CHANCE, section.chance)
    ]
    for window, dots in zip(WINDOWS, style.WINDOWED, strict=True):
        reached = {
            length: context[window]
            for length, context in section.required_context.items()
            if window in context
        }
        if reached:
            lines.append((f"oracle, last {window} tokens", style.GREY, dots, reached))
    return lines


def _name_lines(axis: Any, right: float) -> None:
    """Write the labels at the right ends of the lines; where they would touch, a legend."""
    named = [line for line in axis.get_lines() if not line.get_label().startswith("_")]
    ends = [
        (float(line.get_xdata()[-1]), float(line.get_ydata()[-1]))
        if len(line.get_xdata())
        else None
        for line in named
    ]
    heights = sorted(end[1] for end in ends if end is not None)
    apart = all(b - a >= _LABEL_GAP for a, b in itertools.pairwise(heights))
    reach = all(end is not None and end[0] * _EDGE >= right for end in ends)
    short = all("\n" not in line.get_label() for line in named)
    if not (apart and reach and short):
        handles = sorted(named, key=lambda line: line.get_color() == style.GREY)
        show_legend(axis, handles)
        return
    for line, end in zip(named, ends, strict=True):
        if end is not None:
            name = line_text(line.get_label())
            axis.annotate(
                name, (1.0, end[1]), xycoords=("axes fraction", "data"), va="center",
                xytext=(6, 0), textcoords="offset points", color=line.get_color(),
                fontsize=style.LABEL,
            )  # fmt: skip


def _title(section: Section) -> str:
    counts = sorted({p.n_seeds for p in section.points if p.n_seeds})
    if not counts:
        return section.title
    return f"{section.title}; {_span(counts)} seed{'s' if counts[-1] > 1 else ''}"


def _fitted(title: str) -> str:
    """Return a title in as many lines as there is room for."""
    for limit in (300, 240, 180, 120, 80):
        text = wrapped(shortened([title], limit)[title], _TITLE_IN, style.TITLE, 86, indent="")
        if text.count("\n") < _TITLE_LINES:
            break
    return text


def _span(ordered: Sequence[object]) -> str:
    return " to ".join(map(str, [ordered[0], *ordered[1:][-1:]]))


def length_label(section: Section) -> str:
    """Return what the x axis of lengths is called."""
    how = "each point trained at that length"
    if section.crossing:
        lone = len({p.trained_seqlen for p in section.points}) == 1
        how = trained_at(section) + ", shaded" * lone
    return f"sequence length, tokens ({how})"


def lone_label(section: Section, x_label: str) -> str:
    """Return the one length, or value of `x_label`, of a section, to stand in a label."""
    (length,) = section.lengths
    if x_label:
        return f"{called(x_label, section.setting.task)} {length}"
    return f"length {length}" + (f", {trained_at(section)}" if section.crossing else "")
