"""The atlas drawn: a map of operators by tasks, and how often each is near the best. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mechbench.leaderboard.atlas import Atlas, Entry
from mechbench.leaderboard.atlas_panels import WORST, draw_panels_of
from mechbench.record.config import PROTOCOL
from mechbench.record.files import make_folder, write_text
from mechbench.report import style
from mechbench.report.escape import markdown
from mechbench.report.figure import save_figure
from mechbench.report.fitting import inches
from mechbench.report.solve_plot import APART, SPREAD
from mechbench.report.style import amount, show_legend

_CELL, _LINE = 0.66, 0.36  # inches of a cell
_GAP = 3.0  # points between tasks
_INK = 8.0  # times the best's tokens, from which white is read better
_NOT = "#EDEDED"  # of what is not solved
_README = """# Atlas

What each operator solves, and after how many tokens: every board of protocol {protocol} beside this
folder that compares operators, put together. A row is a task at a length. A cell says the median
tokens to solve, and how many of its seeds did if not all; grey is not solved, by the tokens named:
not yet, unless it is `flat`, which its board tells. Colours are tokens relative to the best of the
row. Nothing counts as solved before the curriculum has come to full length, so the best of a long
task show its length.

![map](map.png)

Where a row does not say otherwise:

{usual}

The same, an operator a panel: how many times the tokens of the best it takes, task by task.

![panels](panels.png)

The share of tasks that an operator solves within so many times the tokens of whoever is best at
each. Operators have their learning rate chosen at each task, as the boards say.

![profile](profile.png)
"""


def write_atlas(found: Atlas, folder: Path) -> list[Path]:
    """Write map, panels and profile, as PNG and SVG, and README.md into a folder; return the files.

    Raises:
        ResultError: a file cannot be written.
    """
    make_folder(folder)
    readme = folder / "README.md"
    usual = [
        f"- {markdown(task)}: {markdown(', '.join(s))}" for task, s in found.usual.items() if s
    ]
    write_text(readme, _README.format(protocol=PROTOCOL, usual="\n".join(usual)))
    figures = draw_map(found, folder / "map")
    figures += draw_panels_of(found, folder / "panels")
    figures += draw_profile(found, folder / "profile")
    return [readme, *figures]


def draw_map(found: Atlas, stem: Path) -> list[Path]:
    """Draw operators by tasks, coloured by tokens relative to the best of a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    left = max(inches(name, style.SMALL) for name in found.tasks) + 0.15
    above = max(inches(name, style.LABEL) for name in found.operators) * 0.75 + 0.2
    wide, high = _CELL * len(found.operators), _LINE * len(found.tasks)
    size = left + wide + 1.1, above + high + 0.15
    with style.applied(spines=True):
        figure = Figure(figsize=size, dpi=style.DPI)
        FigureCanvasAgg(figure)
        axis = figure.add_axes((left / size[0], 0.15 / size[1], wide / size[0], high / size[1]))
        ratios = [[_ratio(found, o, task) for o in found.operators] for task in found.tasks]
        image = axis.imshow(
            ratios, cmap=f"{style.ACCURACY_MAP}_r", norm=LogNorm(1, WORST), aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        for y, task in enumerate(found.tasks):
            for x, operator in enumerate(found.operators):
                if (entry := found.entries.get((operator, task))) is not None:
                    _write(axis, x, y, entry, ratios[y][x])
        for y in _ends(found.tasks):
            axis.axhline(y + 0.5, color="white", linewidth=_GAP)
        axis.set_yticks(range(len(found.tasks)), found.tasks, fontsize=style.SMALL)
        axis.set_xticks(
            range(len(found.operators)), found.operators, fontsize=style.LABEL, rotation=45,
            ha="left", rotation_mode="anchor",
        )  # fmt: skip
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        bar = figure.add_axes(
            ((left + wide + 0.15) / size[0], 0.15 / size[1], 0.12 / size[0], high / size[1])
        )
        ticks = [1, 2, 5, 10, 20, 50, 100]
        figure.colorbar(image, bar, ticks=ticks, format=lambda x, _: f"{x:g}x")
        bar.minorticks_off()
        bar.tick_params(labelsize=style.SMALLER)
        bar.set_ylabel("tokens, times the best of the task", fontsize=style.SMALLER)
        return save_figure(figure, stem)


def _ends(names: Sequence[str]) -> list[int]:
    """Return the rows after which another task begins."""
    tasks = [re.split("[, ]", name)[0] for name in names]
    return [row for row, (task, next_) in enumerate(pairwise(tasks)) if task != next_]


def _ratio(found: Atlas, operator: str, task: str) -> float:
    """Return a ratio as it is coloured; what is not solved or not run has no colour."""
    ratio = found.ratio(operator, task)
    return math.nan if ratio is None or math.isinf(ratio) else min(ratio, WORST)


def _write(axis: Any, x: int, y: int, entry: Entry, ratio: float) -> None:
    from matplotlib.patches import Rectangle

    ink = "white" if ratio > _INK else "black"
    text = amount(float(f"{entry.tokens:.2g}"))
    if not entry.solved:
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=_NOT, linewidth=0))
        ink, text = style.GREY, f"> {text}"
    solved, cells = entry.solving.solved, len(entry.solving.cells)
    if 0 < solved < cells:
        text += f"\n{solved} of {cells}"
    axis.text(x, y, text, ha="center", va="center", color=ink, fontsize=style.SMALLEST)


def draw_profile(found: Atlas, stem: Path) -> list[Path]:
    """Draw the share of tasks solved within a factor of the best operator's tokens.

    Source: Dolan and More 2002, "Benchmarking optimization software with performance profiles".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import offset_copy

    with style.applied():
        figure = Figure(figsize=(8.0, 5.0), dpi=style.DPI)
        FigureCanvasAgg(figure)
        axis: Any = figure.add_axes((0.09, 0.12, 0.6, 0.83))
        axis.set_xscale("log")
        axis.set_xlim(1, WORST)
        axis.set_ylim(-0.03, 1.05)
        looks = style.styles(found.operators)
        shifts = style.side_by_side(len(looks), APART, SPREAD)[::-1]  # the best on top
        for operator, shift in zip(found.operators, shifts, strict=True):
            xs, ys = profile(found, operator)
            place = offset_copy(axis.transData, figure, y=shift, units="points")
            colour, marker = looks[operator]
            axis.plot(
                [*xs, WORST], [*ys, ys[-1]], color=colour, marker=marker, drawstyle="steps-post",
                linewidth=style.CURVE, label=operator, transform=place,
                markevery=list(range(1, len(xs))), **style.DOTS,
            )  # fmt: skip
        ticks = [1, 2, 5, 10, 20, 50, 100]
        axis.set_xticks(ticks, [f"{t}x" for t in ticks])
        axis.set_xticks([], minor=True)
        axis.set_yticks(*style.PERCENTS)
        axis.set_xlabel("tokens, times those of the best operator of a task")
        axis.set_ylabel(f"share of {len(found.tasks)} tasks solved")
        style.grid(axis)
        show_legend(axis)
        return save_figure(figure, stem)


def profile(found: Atlas, operator: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return factors, from 1, and the share of tasks run that are solved within each."""
    ratios = [r for task in found.tasks if (r := found.ratio(operator, task)) is not None]
    within = sorted(r for r in ratios if r <= WORST)
    shares = [(i + 1) / len(ratios) for i in range(len(within))]
    return [1.0, *within], [0.0, *shares]
