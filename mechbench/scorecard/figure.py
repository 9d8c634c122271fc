"""A scorecard drawn: tokens to solve, a row each task, one's own operators among the known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechbench.leaderboard.atlas import Entry
from mechbench.report import style
from mechbench.report.figure import save_figure
from mechbench.report.fitting import inches
from mechbench.report.style import amount
from mechbench.scorecard.card import Card

_ROW, _AXIS, _SIDE = 0.5, 5.2, 1.9  # inches of a row, of the axis, of the legend
_OWN = "#C00000", "#0000B0", "#006000", "#000000"  # colours of one's own
_STAR = 15  # size of its marker
_APART = 9.0  # points between several own operators
_BESIDE, _SPREAD = (
    1.6,
    16.0,
)  # points between known ones that would hide each other, and of them all
_EDGE = 1.4  # times the most and fewest tokens are the ends of the axis


def draw_card(card: Card, stem: Path) -> list[Path]:
    """Draw STEM.png, STEM.svg and STEM.pdf; nothing where nothing was trained.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import offset_copy

    tasks = [task for task in card.tasks if task.entries]
    if not tasks:
        return []
    left = max(inches(task.name, style.LABEL) for task in tasks) + 0.25
    size = left + _AXIS + _SIDE, max(len(tasks) * _ROW, 0.2 * (len(card.known) + 4)) + 0.9
    with style.applied():
        figure = Figure(figsize=size, dpi=style.DPI)
        FigureCanvasAgg(figure)
        box = (left / size[0], 0.55 / size[1], _AXIS / size[0], 1 - 0.75 / size[1])
        axis: Any = figure.add_axes(box)
        looks = style.styles(card.known)
        shifts = style.side_by_side(len(card.known), _BESIDE, _SPREAD)
        places = {
            name: offset_copy(axis.transData, figure, y=shift, units="points")
            for name, shift in zip(card.known, shifts, strict=True)
        }
        for row, task in enumerate(tasks):
            for name, entry in task.known.items():
                given = {**style.DOTS, "zorder": 2, "transform": places[name]}
                _mark(axis, entry, row, looks[name], given)
        for number, name in enumerate(card.own):
            look = _OWN[number % len(_OWN)], "*"
            place = offset_copy(axis.transData, figure, y=number * _APART, units="points")
            for row, task in enumerate(tasks):
                if name in task.entries:
                    entry = task.entries[name]
                    given = {"markersize": _STAR, "zorder": 4, "transform": place}
                    _range(axis, entry, row, look[0], place)
                    _mark(axis, entry, row, look, given)
        every = [e.tokens for task in tasks for e in task.entries.values()]
        axis.set_xscale("log")
        axis.set_xlim(min(every) / _EDGE, max(every) * _EDGE)
        axis.set_ylim(len(tasks) - 0.5, -0.5)
        axis.set_yticks(range(len(tasks)), [task.name for task in tasks], fontsize=style.LABEL)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=style.SMALL)
        style.tick_powers(axis.xaxis, amount)
        axis.set_xlabel("tokens to solve, median of seeds; hollow: not solved by then")
        style.grid(axis)
        style.show_legend(axis, _legend(card, looks))
        return save_figure(figure, stem, ("png", "svg", "pdf"))


def _mark(axis: Any, entry: Entry, row: int, look: tuple[str, str], given: dict[str, Any]) -> None:
    colour, marker = look
    hollow = {} if entry.solved else {"markerfacecolor": "white", "markeredgecolor": colour}
    axis.plot([entry.tokens], [row], marker, color=colour, **{**given, **hollow})


def _range(axis: Any, entry: Entry, row: int, colour: str, place: Any) -> None:
    """Draw a line from the first to the last seed that is solved."""
    tokens = [o.tokens for o in entry.solving.outcomes if o.solved]
    if len(tokens) > 1:
        ends = [min(tokens), max(tokens)]
        axis.plot(ends, [row, row], color=colour, linewidth=style.CURVE, transform=place, zorder=3)


def _legend(card: Card, looks: style.Styles) -> Sequence[Any]:
    from matplotlib.lines import Line2D

    own = [
        Line2D([], [], color=_OWN[i % len(_OWN)], marker="*", linestyle="", markersize=_STAR - 4,
               label=style.line_label(name))
        for i, name in enumerate(card.own)
    ]  # fmt: skip
    known = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=style.line_label(name))
        for name, (colour, marker) in looks.items()
    ]
    return [*own, *known]
