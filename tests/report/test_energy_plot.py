from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mechbench.report import energy_plot as module
from mechbench.report.energy_plot import LEAST, energy_by_lag, plot_energies


def drawn(monkeypatch: pytest.MonkeyPatch, *given: object, **more: object) -> Figure:
    """Return the figure instead of writing it."""
    caught: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: caught.append(figure) or [])
    plot_energies(*given, "title", Path("unused"), **more)  # type: ignore[arg-type]
    return caught[0]


def test_energy_is_the_mean_square_of_a_bin_of_the_largest() -> None:
    taps = np.array([[1.0, -3.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 4.0]])
    # Bins of lags 0, 1; 2, 3, 4 have means of squares 5 and 5/3; 0 and 16/3.
    assert energy_by_lag(taps, 2) == pytest.approx(np.array([[1, 1 / 3], [LEAST, 1]]))
    assert energy_by_lag(taps, 5)[0] == pytest.approx([1 / 9, 1, 4 / 9, LEAST, 1 / 9])
    assert np.array_equal(energy_by_lag(taps, 9), energy_by_lag(taps, 5))
    assert np.array_equal(energy_by_lag(1e3 * taps, 2), energy_by_lag(taps, 2))
    assert np.array_equal(energy_by_lag(0 * taps, 2), np.full((2, 2), LEAST))


def test_float32_taps_do_not_overflow() -> None:
    taps = np.array([[1e25, 1e24]], dtype=np.float32)
    assert energy_by_lag(taps) == pytest.approx(np.array([[1.0, 0.01]]))


def test_a_decaying_window_is_a_falling_line_and_a_shifted_one_ends_at_its_square() -> None:
    t = np.arange(1000) / 1000
    decaying, shifted = np.exp(-10 * t), np.exp(-10 * t) + 0.1
    one, other = (energy_by_lag(h[None], 100)[0] for h in (decaying, shifted))
    assert np.diff(np.log(one[:70])) == pytest.approx(np.full(69, -0.2), rel=1e-6)
    assert other[-1] == pytest.approx(0.01, rel=0.2)
    assert one[-1] < 1e-7


def test_quantiles_over_channels_are_drawn_at_the_middle_of_bins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    energies = np.linspace(0.1, 1.0, 11)[:, None] * np.array([1.0, 0.5])  # (C, bins)
    figure = drawn(monkeypatch, {"hyena": [energies, energies / 10]}, 6, asked_from=5)
    (axis,) = figure.axes
    median, most, lower, _, asked = axis.lines
    assert median.get_xdata() == pytest.approx([1, 4])  # of lags 0 to 2 and 3 to 5
    assert median.get_ydata() == pytest.approx([0.55, 0.275])
    assert most.get_ydata() == pytest.approx([1, 0.5])
    assert lower.get_ydata() == pytest.approx([0.055, 0.0275])
    assert list(asked.get_xdata()) == [5, 5]
    band = axis.collections[0].get_paths()[0].vertices
    assert [band[:, 1].min(), band[:, 1].max()] == pytest.approx([0.095, 0.91])
    assert axis.get_yscale() == "log"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["layer 0, median channel", "layer 1, median channel"]
    assert texts[-1] == "what is asked for lies beyond"


def test_panels_share_their_axes_and_the_lowest_say_what_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    panels = {f"shift {i}": [np.full((3, 4), 0.5**i)] for i in range(7)}
    axes = drawn(monkeypatch, panels, 4).axes
    assert [axis.get_title() for axis in axes] == list(panels)
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in axes}) == 1
    assert [bool(axis.get_xlabel()) for axis in axes] == 3 * [False] + 4 * [True]
    assert not any(line.get_linestyle() == "--" for axis in axes for line in axis.lines)


def test_same_energies_same_bytes(tmp_path: Path) -> None:
    panels = {"hyena": [energy_by_lag(np.arange(12.0).reshape(2, 6))]}
    one = plot_energies(panels, 6, "filters", tmp_path / "one")
    two = plot_energies(panels, 6, "filters", tmp_path / "two")
    assert [path.name for path in one] == ["one.png", "one.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
    with pytest.raises(ValueError, match="no filters"):
        plot_energies({}, 6, "filters", tmp_path / "none")
