"""Mixing matrices H(u) as heat maps. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechbench.report import style
from mechbench.report.figure import give_title, save_figure

if TYPE_CHECKING:
    import numpy as np


def plot_matrices(matrices: np.ndarray[Any, Any], title: str, stem: Path) -> list[Path]:
    """Draw (C, L, L) matrices side by side as STEM.png and STEM.svg; return the paths.

    One symmetric colour scale for all, red positive and blue negative.

    Raises:
        ResultError: a file cannot be written.
    """
    from matplotlib.figure import Figure

    limit = float(abs(matrices).max()) or 1.0
    figure = Figure(figsize=(3 * len(matrices) + 1, 3.6), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for channel, (axis, matrix) in enumerate(zip(axes, matrices, strict=True)):
        image = axis.imshow(
            matrix, cmap=style.SIGNED_MAP, vmin=-limit, vmax=limit, interpolation="nearest"
        )
        axis.set_title(f"channel {channel}", fontsize=style.LABEL)
        axis.set_xlabel("input position s")
    axes[0].set_ylabel("output position t")
    figure.colorbar(image, ax=axes, shrink=0.85)
    give_title(figure, title)
    return save_figure(figure, stem)
