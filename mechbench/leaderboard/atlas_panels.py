"""The atlas as small multiples: a panel for each operator, a row for each task. No torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mechbench.leaderboard.atlas import Atlas
from mechbench.report import style
from mechbench.report.figure import save_figure
from mechbench.report.fitting import inches

WORST = 100.0  # times the best's tokens, where the axis of what is solved ends
_COLUMNS = 4
_WIDE, _ROW = 1.75, 0.145  # inches of a panel, of a row in it
_BESIDE, _OVER, _FOOT = 0.12, 0.3, 0.55  # inches between panels, of a title, of the labels below
_UNSOLVED = 2.0  # times WORST, where what is not solved stands
_DOT = 4.5  # points


def draw_panels_of(found: Atlas, stem: Path) -> list[Path]:
    """Draw how many times the best operator's tokens each operator takes at each task.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left = max(inches(name, style.SMALLER) for name in found.tasks) + 0.2
    high = _ROW * len(found.tasks)
    rows = math.ceil(len(found.operators) / _COLUMNS)
    columns = min(_COLUMNS, len(found.operators))
    size = left + columns * (_WIDE + _BESIDE), rows * (high + _OVER) + _FOOT
    looks = style.styles(found.operators)
    with style.applied():
        figure = Figure(figsize=size, dpi=style.DPI)
        FigureCanvasAgg(figure)
        for number, operator in enumerate(found.operators):
            row, column = divmod(number, columns)
            x = left + column * (_WIDE + _BESIDE)
            y = _FOOT + (rows - 1 - row) * (high + _OVER)
            box = (x / size[0], y / size[1], _WIDE / size[0], high / size[1])
            axis = figure.add_axes(box)
            _panel(axis, found, operator, looks[operator])
            shown = [task if not column else "" for task in found.tasks]
            axis.set_yticks(range(len(found.tasks)), shown, fontsize=style.SMALLER)
            if number + columns < len(found.operators):
                axis.set_xticklabels([])
        figure.text(
            (left + columns * _WIDE / 2) / size[0], 0.12 / size[1],
            "tokens to solve, times those of the best operator; grey cross: not solved yet",
            ha="center", fontsize=style.LABEL,
        )  # fmt: skip
        return save_figure(figure, stem)


def _panel(axis: Any, found: Atlas, operator: str, look: tuple[str, str]) -> None:
    colour, marker = look
    for row, task in enumerate(found.tasks):
        ratio = found.ratio(operator, task)
        if ratio is None:
            continue
        if math.isinf(ratio):
            axis.plot([WORST * _UNSOLVED], [row], "x", color=style.GREY, markersize=_DOT - 1)
            continue
        at = min(ratio, WORST)
        axis.plot([1, at], [row, row], color=colour, linewidth=style.THIN)
        axis.plot(
            [at], [row], marker, color=colour, clip_on=False, **{**style.DOTS, "markersize": _DOT}
        )
    axis.set_xscale("log")
    axis.set_xlim(0.9, WORST * _UNSOLVED * 1.5)
    axis.set_ylim(len(found.tasks) - 0.5, -0.5)
    axis.set_xticks([1, 10, WORST], ["1x", "10x", f"{WORST:g}x"], fontsize=style.SMALLER)
    axis.set_xticks([], minor=True)
    axis.tick_params(axis="y", length=0)
    axis.set_title(operator, fontsize=style.LABEL, color=colour, loc="left", pad=3)
    style.grid(axis)
