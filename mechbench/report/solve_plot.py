"""The share of cells solved by each number of tokens, a line an operator. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechbench.report import style
from mechbench.report.figure import save_figure
from mechbench.report.fitting import shortened, wrapped
from mechbench.report.log_rank import Groups, ranked
from mechbench.report.solve_curve import SolveCurve, solve_curve
from mechbench.report.style import Styles, amount, line_label, show_legend

# Inches of the panel and its margins, as of the other plots with a legend beside them.
_WIDTH, _LEFT, _RIGHT, _BOTTOM, _TOP = 8.0, 0.8, 2.75, 0.65, 0.4
_TITLE_IN, _TITLE_LINE = 7.0, 0.2  # inches of the title: width, and height of each further line
_MARGIN = 0.04  # of the axis of shares beyond 0 and 1, so that lines there are whole
_BANDED = 4  # more bands than these hide each other and the lines
_BAND_ALPHA = 0.1  # fainter than of intervals that seldom overlap
_EDGE = 1.6  # between the first and last steps and the edges: a round number fits between
APART, SPREAD = 1.2, 9.0  # points between two lines of one share, and between the outermost
_TICKS = 7  # labels on the axis of tokens that fit
_GAP = 0.11  # of the axis, between two of them
_TICK: dict[str, Any] = {"markersize": style.CROSS, "markeredgewidth": style.CURVE, "zorder": 4}
_STEPS = (
    (range(1, 10), 1),
    ((1, 1.5, 2, 3, 5, 7), 1),
    ((1, 2, 5), 1),
    ((1, 3), 1),
    ((1,), 1),
    ((1,), 2),
    ((1,), 3),
)


def plot_solve_curves(
    panels: Mapping[str, Groups], stem: Path, bands: bool | None = None
) -> list[Path]:
    """Draw solve curves as STEM.png and STEM.svg; return the paths.

    A line ends where its last unsolved cell was given up, and goes on to the edge where all are
    solved; markers show where cells were solved, ticks across the line where they were given up.
    Lines are set a point apart, so that of several at 0 or at 100 percent each is seen. A band
    begins where the first cell is solved, as before that all groups of a size have the same one.
    The legend is in the order of `ranked`; a label looks the same in all panels.

    Args:
        panels: by title, outcomes by label, at least one of each.
        stem: path of the files without suffix.
        bands: whether to draw 95 percent bands; by default of up to four groups.

    Raises:
        ValueError: there is no panel, no group in one, or a group is empty.
        ResultError: a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not panels or not all(panels.values()):
        raise ValueError("no group: expected at least one")
    names = [_names(groups) for groups in panels.values()]
    headings = [
        wrapped(shortened([title], 200)[title], _TITLE_IN, style.TITLE, 86, indent="")
        for title in panels
    ]
    top = _TOP + _TITLE_LINE * max(heading.count("\n") for heading in headings)
    height = max(4.5, *map(_legend_height, names)) + top
    columns = 1 if len(panels) == 1 else 2
    rows = math.ceil(len(panels) / columns)
    size = _WIDTH * columns, height * rows
    looks = style.styles(sorted({label for groups in panels.values() for label in groups}))
    with style.applied():
        dpi = style.DPI if len(panels) <= style.MANY else style.DPI_MANY
        figure = Figure(figsize=size, dpi=dpi)
        FigureCanvasAgg(figure)
        for i, groups in enumerate(panels.values()):
            row, column = divmod(i, columns)
            x, y = _WIDTH * column + _LEFT, height * (rows - 1 - row) + _BOTTOM
            wide, high = _WIDTH - _LEFT - _RIGHT, height - _BOTTOM - top
            box = (x / size[0], y / size[1], wide / size[0], high / size[1])
            axis = figure.add_axes(box)
            banded = len(groups) <= _BANDED if bands is None else bands
            _panel(axis, groups, names[i], looks, banded)
            axis.set_title(headings[i], fontsize=style.TITLE, loc="left")
        return save_figure(figure, stem)


def _legend_height(names: Mapping[str, str]) -> float:
    """Return the inches that a panel needs for the legend beside it."""
    lines = sum(name.count("\n") + 1 for name in names.values())
    return 0.17 * (lines + 2) + 0.07 * len(names)


def _names(groups: Groups) -> dict[str, str]:
    """Return {label: label of its line}, the best first."""
    short = shortened(groups)
    names = {}
    for label in ranked(groups):
        solved, cells = sum(o.solved for o in groups[label]), len(groups[label])
        text = f"{short[label]}, {solved} of {cells}"
        names[label] = line_label(wrapped(text, style.LEGEND_IN, style.LABEL, 36))
    return names


def _panel(axis: Any, groups: Groups, names: Mapping[str, str], looks: Styles, bands: bool) -> None:
    tokens = [o.tokens for outcomes in groups.values() for o in outcomes]
    left, right = min(tokens) / _EDGE, max(tokens) * _EDGE
    shifts = style.side_by_side(len(names), APART, SPREAD)[::-1]  # the best on top
    for (label, name), shift in zip(names.items(), shifts, strict=True):
        curve = solve_curve(groups[label])
        _curve(axis, curve, looks[label], name, (left, right), shift)
        if bands:
            _band(axis, curve, looks[label][0], right)
    axis.set_xscale("log")
    axis.set_xlim(left, right)
    ticks = _ticks(left, right)
    axis.set_xticks(ticks, [amount(t) for t in ticks])
    axis.set_xticks([], minor=True)
    axis.set_ylim(-_MARGIN, 1 + _MARGIN)
    axis.set_yticks(*style.PERCENTS)
    axis.set_xlabel("training tokens")
    axis.set_ylabel("share of cells solved")
    style.grid(axis)
    handles = [line for line in axis.get_lines() if not line.get_label().startswith("_")]
    if any(not o.solved for outcomes in groups.values() for o in outcomes):
        handles += axis.plot([], [], "|", color=style.GREY, label="given up, not solved", **_TICK)
    show_legend(axis, handles)


def _curve(
    axis: Any, curve: SolveCurve, look: tuple[str, str], name: str,
    edges: tuple[float, float], shift: float,
) -> None:  # fmt: skip
    import numpy as np
    from matplotlib.transforms import offset_copy

    colour, marker = look
    place = offset_copy(axis.transData, axis.figure, y=shift, units="points")
    xs = np.r_[edges[0], curve.tokens[1:], min(curve.end, edges[1])]
    solves = np.diff(curve.share, prepend=0.0).nonzero()[0]
    axis.plot(
        xs, np.r_[curve.share, curve.share[-1]], color=colour, drawstyle="steps-post", label=name,
        linewidth=style.CURVE, marker=marker, markevery=solves.tolist(), transform=place,
        **style.DOTS,
    )  # fmt: skip
    given_up = curve.censored > 0
    axis.plot(
        curve.tokens[given_up], curve.share[given_up], "|", color=colour, transform=place, **_TICK
    )


def _band(axis: Any, curve: SolveCurve, colour: str, right: float) -> None:
    import numpy as np

    first = int((curve.share > 0).argmax())  # 0 where nothing is solved
    xs = np.r_[curve.tokens[first:], min(curve.end, right)]
    low, high = (np.r_[ends[first:], ends[-1]] for ends in (curve.low, curve.high))
    axis.fill_between(xs, low, high, step="post", color=colour, alpha=_BAND_ALPHA, linewidth=0)
    for ends in (low, high):
        inside = np.where((ends > 0) & (ends < 1), ends, math.nan)
        axis.plot(
            xs, inside, color=colour, drawstyle="steps-post", linewidth=style.FINE,
            linestyle=style.WINDOWED[0], zorder=2,
        )  # fmt: skip


def _ticks(left: float, right: float) -> list[float]:
    """Return round numbers between two, as many as there is room for."""
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    for steps, every in _STEPS:
        ticks = [step * 10.0**n for n in decades[::every] for step in steps]
        inside = [t for t in ticks if left <= t <= right]
        gaps = [math.log(b / a) / math.log(right / left) for a, b in itertools.pairwise(inside)]
        if len(inside) <= _TICKS and min(gaps, default=1.0) >= _GAP:
            break
    return inside
