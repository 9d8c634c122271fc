"""Time against length, both logarithmic; crossovers and lost readings marked. No torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mechbench.bench.fit import crossings
from mechbench.bench.record import OUT_OF_MEMORY, REFERENCE, Record
from mechbench.bench.table import compares
from mechbench.report import style
from mechbench.report.figure import save_figure
from mechbench.report.fitting import wrapped
from mechbench.report.style import line_label, show_legend, tick

TOKENS = 131_072  # that the times are given for


def plot_times(record: Record, stem: Path) -> list[Path]:
    """Draw forward+backward for 131072 tokens as STEM.png and STEM.svg; return the paths.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.applied():
        figure = Figure(figsize=(9.0, 5.0), dpi=style.DPI)
        FigureCanvasAgg(figure)
        axis = figure.add_axes((0.085, 0.13, 0.6, 0.77))
        _draw(axis, record)
        return save_figure(figure, stem)


def curve(record: Record, line: str) -> dict[int, float]:
    """Return ms of forward and backward for 131072 tokens by length."""
    setting = record.setting
    return {n: ms * TOKENS / (setting.batch(n) * n) for n, ms in record.medians(line).items()}


def _draw(axis: Any, record: Record) -> None:
    lengths = record.seqlens
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(lengths[0] / 1.3, lengths[-1] * 1.3)
    axis.set_xticks(lengths, [tick(n) for n in lengths], rotation=45 if len(lengths) > 12 else 0)
    axis.minorticks_off()
    style.grid(axis)
    axis.set_xlabel("sequence length, tokens")
    axis.set_ylabel(f"forward + backward, ms for {TOKENS:,} tokens")
    s, p = record.setting, record.provenance
    title = f"{p['device']}, torch {p['torch']}, {s.dtype}, d_model {s.d_model}"
    text = wrapped(title, 8.0, style.BENCH_TITLE, 120, indent="")
    axis.set_title(text, fontsize=style.BENCH_TITLE, loc="left")

    curves = {line.name: curve(record, line.name) for line in record.lines}
    _frame_times(axis, [ms for points in curves.values() for ms in points.values()])
    crossed = lost = False
    looks = style.styles(curves)
    for name, points in curves.items():
        colour, marker = looks[name]
        gone = [n for n, reading in record.of(name).items() if reading.status == OUT_OF_MEMORY]
        met = _crossed(points, curves.get(REFERENCE, {}), name)
        label = name + (f", as fast at {', '.join(_length(x) for x, _ in met)}" if met else "")
        if not points and not gone:
            continue
        label = line_label(wrapped(label, style.LEGEND_IN, style.LABEL, 40))
        axis.plot(
            list(points), list(points.values()), color=colour, marker=marker, label=label,
            linestyle=style.SURE if compares(name) else style.UNSURE, linewidth=style.CURVE,
            **style.DOTS,
        )  # fmt: skip
        axis.plot(
            gone, [1.0] * len(gone), "x", color=colour, markersize=style.LARGE_CROSS,
            markeredgewidth=2, transform=axis.get_xaxis_transform(), clip_on=False, zorder=4,
        )  # fmt: skip
        xs, ys = [x for x, _ in met], [y for _, y in met]
        axis.plot(
            xs, ys, "o", mfc="none", mec=colour, markersize=style.RING, mew=style.RING_EDGE,
            zorder=5,
        )  # fmt: skip
        crossed |= bool(met)
        lost |= bool(gone)
    if crossed:
        label = f"as fast as {REFERENCE}"
        axis.plot(
            [], [], "o", mfc="none", mec=style.GREY, markersize=style.LEGEND_RING,
            mew=style.RING_EDGE, label=label,
        )  # fmt: skip
    if lost:
        label = "at the top: out of memory"
        axis.plot([], [], "x", color=style.GREY, markersize=style.LARGE_CROSS, label=label)
    show_legend(axis, gap=0.02)


def _frame_times(axis: Any, times: list[float]) -> None:
    style.tick_powers(axis.yaxis, lambda ms: f"{ms:g}")
    if times:
        axis.set_ylim(min(times) / 1.5, max(times) * 1.5)


def _crossed(
    own: dict[int, float], other: dict[int, float], name: str
) -> list[tuple[float, float]]:
    """Return the points at which a mixer's curve meets attention's."""
    if not compares(name) or name == REFERENCE:
        return []
    return [(c.seqlen, _at(own, c.seqlen)) for c in crossings(own, other)]


def _at(points: dict[int, float], seqlen: float) -> float:
    """Return the height of a curve at a length between two measured ones."""
    left = max(n for n in points if n <= seqlen * (1 + 1e-9))
    right = min(n for n in points if n >= seqlen * (1 - 1e-9))
    if left >= right:
        return points[right]
    share = math.log(seqlen / left) / math.log(right / left)
    return math.exp((1 - share) * math.log(points[left]) + share * math.log(points[right]))


def _length(seqlen: float) -> str:
    return f"{seqlen / 1024:.3g}K" if seqlen >= 1024 else f"{seqlen:.0f}"
