"""Filters over time and their spectra. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechbench.report.figure import give_title, save_figure

if TYPE_CHECKING:
    import numpy as np


def plot_filters(taps: np.ndarray[Any, Any], title: str, stem: Path) -> list[Path]:
    """Draw (C, L) taps over time and over frequency as STEM.png and STEM.svg; return the paths.

    Raises:
        ResultError: a file cannot be written.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    over_time, spectrum = figure.subplots(1, 2)
    frequency = np.fft.rfftfreq(taps.shape[-1])
    for channel, h in enumerate(taps):
        over_time.plot(h, linewidth=1, label=f"filter {channel}")
        spectrum.plot(frequency, abs(np.fft.rfft(h)), linewidth=1)
    over_time.set_xlabel("lag, tokens")
    over_time.set_ylabel("tap")
    over_time.legend(fontsize=8, frameon=False)
    spectrum.set_xlabel("frequency, cycles a token")
    spectrum.set_ylabel("magnitude")
    if taps.any():
        spectrum.set_yscale("log", nonpositive="clip")
    for axis in (over_time, spectrum):
        axis.grid(color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
    give_title(figure, title)
    return save_figure(figure, stem)
