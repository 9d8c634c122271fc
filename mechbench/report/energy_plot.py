"""The energy of learned filters against lag: how far back their channels see. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechbench.report import style
from mechbench.report.figure import give_title, save_figure
from mechbench.report.fitting import shortened, wrapped

if TYPE_CHECKING:
    import numpy as np

BINS = 128  # of lags: a channel's zero crossings would hide how strong it is around them
LEAST = 1e-8  # of a channel's largest energy: what lies below is drawn as this
_LOW, _HIGH = 10, 90  # percent of the channels, between which the band lies
_WIDTH, _HEIGHT, _COLUMNS = 3.6, 2.7, 4  # inches of a panel; panels in a row
_TICKS = 4  # labels on the axis of lags that fit
_LEGEND = 0.7  # inches of the legend below the panels and of the title
_MOST: dict[str, Any] = {"linewidth": style.FINE, "linestyle": style.WINDOWED[0]}
_ASKED: dict[str, Any] = {
    "color": style.GREY, "linestyle": style.CHANCE, "linewidth": style.REFERENCE,
}  # fmt: skip


def energy_by_lag(taps: np.ndarray[Any, Any], n_bins: int = BINS) -> np.ndarray[Any, Any]:
    """Return the mean square of taps (C, L) in equal bins of lag, 1 for a channel's largest.

    The result is (C, min(n_bins, L)), at least `LEAST`; of a channel that is zero, `LEAST`.
    """
    import numpy as np

    L = taps.shape[-1]
    starts = _starts(L, n_bins)
    sums = np.add.reduceat(np.square(taps, dtype=np.float64), starts, -1)
    means = sums / np.diff(starts, append=L)
    largest = means.max(-1, keepdims=True)
    shares = np.divide(means, largest, out=np.zeros_like(means), where=largest > 0)
    clipped: np.ndarray[Any, Any] = shares.clip(LEAST)
    return clipped


def _starts(seqlen: int, n_bins: int) -> np.ndarray[Any, Any]:
    """Return the first lag of each bin."""
    import numpy as np

    n = min(n_bins, seqlen)
    return np.arange(n) * seqlen // n


def plot_energies(
    panels: Mapping[str, Sequence[np.ndarray[Any, Any]]], seqlen: int, title: str, stem: Path,
    asked_from: int = 0,
) -> list[Path]:  # fmt: skip
    """Draw the energy of filters against lag as STEM.png and STEM.svg; return the paths.

    A panel has, for each layer, the median over channels, a band from the 10th to the 90th percent
    of them, and dots for the channel with the most at a lag: one that sees far is enough.

    Args:
        panels: by title, for each layer what `energy_by_lag` gives of all its channels.
        seqlen: L, lags that the bins are of.
        title: of the figure.
        stem: path of the files without suffix.
        asked_from: lag from which on the task asks for something; 0: it does not say.

    Raises:
        ValueError: there is no panel.
        ResultError: a file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if not panels:
        raise ValueError("no filters: expected those of at least one run")
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    names = shortened(panels, 80)
    size = _WIDTH * max(columns, 2), _HEIGHT * rows + _LEGEND
    with style.applied():
        figure = Figure(figsize=size, dpi=style.DPI, layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis, (name, layers) in zip(axes.flat, panels.items(), strict=False):
            for layer, energies in enumerate(layers):
                _layer(axis, energies, seqlen, style.colour(layer))
            if asked_from:
                axis.axvline(asked_from, **_ASKED)
            heading = wrapped(names[name], _WIDTH - 0.7, style.LABEL, 60)
            axis.set_title(heading, fontsize=style.LABEL)
            style.grid(axis)
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis in axes.flat[max(0, len(panels) - columns) : len(panels)]:  # none is below them
            axis.set_xlabel("lag, tokens")
            axis.tick_params(labelbottom=True)
        for axis in axes[:, 0]:
            axis.set_ylabel("energy, of the largest")
        first = axes[0, 0]
        first.set_yscale("log")
        first.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
        first.set_ylim(LEAST / 2, 2.0)
        first.set_xlim(0, seqlen)
        first.xaxis.set_major_locator(MaxNLocator(_TICKS))
        first.xaxis.set_major_formatter(FuncFormatter(lambda lag, _: f"{lag:,.0f}"))
        n_layers = max(len(layers) for layers in panels.values())
        figure.legend(
            handles=_legend(n_layers, asked_from), loc="outside lower center", ncols=_COLUMNS + 1,
            frameon=False, fontsize=style.SMALL,
        )  # fmt: skip
        give_title(figure, title)
        return save_figure(figure, stem)


def _layer(axis: Any, energies: np.ndarray[Any, Any], seqlen: int, colour: str) -> None:
    """Draw one layer's quantiles over channels at each bin."""
    import numpy as np

    starts = _starts(seqlen, energies.shape[-1])
    middles = (starts + np.append(starts[1:], seqlen) - 1) / 2
    low, median, high = np.percentile(energies, (_LOW, 50, _HIGH), axis=0)
    axis.fill_between(middles, low, high, color=colour, alpha=style.BAND_ALPHA, linewidth=0)
    axis.plot(middles, median, color=colour, linewidth=style.CURVE)
    axis.plot(middles, energies.max(0), color=colour, **_MOST)


def _legend(n_layers: int, asked_from: int) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D(
            [], [], color=style.colour(layer), linewidth=style.CURVE,
            label=f"layer {layer}, median channel",
        )
        for layer in range(n_layers)
    ]  # fmt: skip
    band = f"{_LOW} to {_HIGH} % of channels"
    handles += [
        Patch(color=style.GREY, alpha=style.BAND_ALPHA, linewidth=0, label=band),
        Line2D([], [], color=style.GREY, label="channel with the most", **_MOST),
    ]
    if asked_from:
        handles.append(Line2D([], [], label="what is asked for lies beyond", **_ASKED))
    return handles
