"""How strongly the last output depends on inputs at each distance. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechbench.report import style
from mechbench.report.figure import give_title, save_figure

if TYPE_CHECKING:
    import numpy as np


def plot_reach(norms: np.ndarray[Any, Any], title: str, stem: Path) -> list[Path]:
    """Draw gradient norms (L,), distance 0 first, as STEM.png and STEM.svg; return the paths.

    Beside them the share of the gradient that is held within each distance.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(norms, color=style.MAIN, linewidth=style.REFERENCE)
    if norms.any():
        # Zeros are left out of a logarithmic axis, as they should be: nothing arrives from there.
        left.set_yscale("log", nonpositive="mask")
    left.set_ylabel("gradient norm, last output by input")
    right.plot(norms.cumsum() / (norms.sum() or 1.0), color=style.MAIN, linewidth=style.REFERENCE)
    right.axhline(0.95, color=style.GREY, linewidth=style.FINE, linestyle="--")
    right.set_ylim(0, style.HIGHEST)
    right.set_ylabel("share within the distance (dashes: 95%)")
    for axis in (left, right):
        axis.set_xlabel("distance to the last position, tokens")
        axis.set_xlim(0, max(1, len(norms) - 1))
        style.grid(axis)
    give_title(figure, title)
    return save_figure(figure, stem)
