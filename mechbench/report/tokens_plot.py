"""Tokens that it takes to solve a task, versus sequence length or another axis. No torch."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mechbench.report import style
from mechbench.report.aggregate import Point, Section
from mechbench.report.labels import called
from mechbench.report.lone_panel import name_rows
from mechbench.report.plot import (
    APART,
    SPREAD,
    draw_panels,
    give_heading,
    legend_texts,
    length_label,
    lone_label,
    scale_lengths,
)
from mechbench.report.solve_curve import median_tokens
from mechbench.report.style import Styles, amount, line_text, show_legend
from mechbench.report.survival import half_followed

_LABEL = "tokens to solve, median of seeds"
_HOLLOW = "hollow: not solved by then"
_RANGE = "thin: seeds that solved it"
_EDGE = 1.3  # times the most tokens is the end of the axis
_LEAST = 10.0  # times its beginning, at least


def plot_tokens(sections: Sequence[Section], stem: Path, x_label: str = "") -> list[Path]:
    """Draw STEM.png and STEM.svg and return them; nothing where nothing is solved.

    Args:
        sections: one a panel; `eval_seqlen` of their points is the x axis. Left out are models
            scored at other lengths than their own, what looks ahead, and sections in which nothing
            is solved.
        stem: path of the files without suffix.
        x_label: what the x axis shows, if it is not the sequence length.

    Raises:
        ResultError: a file cannot be written.
    """
    shown = [_trained(section, bool(x_label)) for section in sections]
    shown = [s for s in shown if any(point.solving.solved for point in s.points)]
    return draw_panels(shown, stem, partial(_panel, x_label=x_label)) if shown else []


def _trained(section: Section, other_axis: bool) -> Section:
    """Return the section with what was trained where it stands."""

    def counts(point: Point) -> bool:
        # Along another axis a point no longer knows the length that it was scored at.
        own = not section.crossing if other_axis else point.eval_seqlen == point.trained_seqlen
        return own and point.causal is not False and bool(point.solving.cells)

    return dataclasses.replace(section, points=tuple(filter(counts, section.points)))


def reached(point: Point) -> tuple[float, bool]:
    """Return the median tokens to solve and True, or what at least half had without and False."""
    median = median_tokens(point.solving.outcomes).tokens
    solved = math.isfinite(median)
    return (median if solved else half_followed(point.solving.outcomes)), solved


def _panel(axis: Any, section: Section, styles: Styles, x_label: str) -> None:
    names = legend_texts(section)
    curves = dict(sorted(section.curves.items(), key=lambda item: _merit(item[1])))
    lone = len(section.lengths) == 1
    if lone:
        _rows(axis, curves, styles, names, _remarks(section))
        axis.set_xlabel(f"{_LABEL}, at {lone_label(section, x_label)}")
    else:
        scale_lengths(axis, section.lengths)
        shifts = style.side_by_side(len(curves), APART, SPREAD)
        for (label, points), shift in zip(curves.items(), shifts, strict=True):
            _curve(axis, points, shift, styles[label], names[label])
        axis.set_xlabel(called(x_label, section.setting.task) or length_label(section))
        axis.set_ylabel(_LABEL)
        for remark in _remarks(section):
            look: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "linestyle": "none"}
            look = look if remark == _HOLLOW else {"linewidth": style.THIN}
            axis.plot([], [], color=style.GREY, label=remark, **look)
        show_legend(axis)
    outcomes = [o.tokens for point in section.points for o in point.solving.outcomes]
    scale, limit = (axis.set_xscale, axis.set_xlim) if lone else (axis.set_yscale, axis.set_ylim)
    scale("log")
    around = max(_EDGE, math.sqrt(_LEAST * min(outcomes) / max(outcomes)))
    limit(min(outcomes) / around, max(outcomes) * around)
    style.tick_powers(axis.xaxis if lone else axis.yaxis, amount)
    style.grid(axis)
    give_heading(axis, section)


def _remarks(section: Section) -> list[str]:
    hollow = not all(reached(point)[1] for point in section.points)
    return [_HOLLOW] * hollow + [_RANGE] * any(map(_range, section.points))


def _merit(points: Sequence[Point]) -> tuple[float, float]:
    """Return what curves are sorted by: points not solved, then the mean of log tokens."""
    found = [reached(point) for point in points]
    tokens = statistics.fmean(math.log(tokens) for tokens, _ in found)
    return sum(not solved for _, solved in found) / len(found), tokens


def _curve(
    axis: Any, points: Sequence[Point], shift: float, look: tuple[str, str], name: str
) -> None:
    from matplotlib.transforms import offset_copy

    colour, marker = look
    place = offset_copy(axis.transData, axis.figure, x=shift, units="points")
    xs, least, solved = [], [], []
    for point in points:
        x, (tokens, known) = point.eval_seqlen, reached(point)
        xs.append(x)
        least.append(tokens)
        solved.append(tokens if known else math.nan)
        if ends := _range(point):
            axis.plot([x, x], ends, color=colour, linewidth=style.THIN, transform=place)
        if not known:
            _hollow(axis, x, tokens, look, place)
    axis.plot(xs, least, ":", color=colour, linewidth=style.REFERENCE, transform=place)
    axis.plot(
        xs, solved, color=colour, marker=marker, linewidth=style.CURVE, label=name,
        transform=place, **style.DOTS,
    )  # fmt: skip


def _rows(
    axis: Any, curves: dict[str, list[Point]], styles: Styles, names: dict[str, str],
    remarks: Sequence[str],
) -> None:  # fmt: skip
    texts, colours = [], []
    for row, (label, (point,)) in enumerate(curves.items()):
        (colour, marker), (tokens, solved) = styles[label], reached(point)
        if ends := _range(point):
            axis.plot(ends, [row, row], color=colour, linewidth=style.THIN)
        if solved:
            axis.plot([tokens], [row], color=colour, marker=marker, **style.DOTS)
        else:
            _hollow(axis, tokens, row, styles[label], axis.transData)
        texts.append(line_text(names[label]))
        colours.append(colour)
    name_rows(axis, [*texts, *remarks], colours + [style.GREY] * len(remarks))


def _hollow(axis: Any, x: float, y: float, look: tuple[str, str], place: Any) -> None:
    colour, marker = look
    axis.plot(
        [x], [y], marker=marker, markersize=style.DOTS["markersize"], markeredgecolor=colour,
        markerfacecolor="white", zorder=4, transform=place,
    )  # fmt: skip


def _range(point: Point) -> list[float]:
    """Return the fewest and the most tokens of seeds that solved it, if they are several."""
    solved = [outcome.tokens for outcome in point.solving.outcomes if outcome.solved]
    return [min(solved), max(solved)] if len(solved) > 1 else []
