from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mechbench.report import filter_plot as module
from mechbench.report.filter_plot import plot_filters

TAPS = np.stack([np.ones(8), np.r_[1.0, np.zeros(7)]])  # a sum and a delta


def drawn(taps: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """Return the figure instead of writing it."""
    caught: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: caught.append(figure) or [])
    plot_filters(taps, "title", Path("unused"))
    return caught[0]


def test_taps_and_magnitudes_are_drawn_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    over_time, spectrum = drawn(TAPS, monkeypatch).axes
    for line, taps in zip(over_time.lines, TAPS, strict=True):
        assert np.array_equal(line.get_ydata(), taps)
    summed, delta = (line.get_ydata() for line in spectrum.lines)
    assert summed == pytest.approx([8, 0, 0, 0, 0], abs=1e-12)
    assert delta == pytest.approx([1, 1, 1, 1, 1])
    assert spectrum.lines[0].get_xdata() == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])


def test_same_taps_same_bytes_and_zeros_are_drawn(tmp_path: Path) -> None:
    one = plot_filters(TAPS, "filters", tmp_path / "one")
    two = plot_filters(TAPS.copy(), "filters", tmp_path / "two")
    assert [path.name for path in one] == ["one.png", "one.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert plot_filters(np.zeros((1, 2)), "zeros", tmp_path / "three")
