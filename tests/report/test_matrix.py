from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from mechbench.report import matrix as module
from mechbench.report.matrix import plot_matrices

MATRICES = np.tril(np.arange(2 * 4 * 4, dtype=float).reshape(2, 4, 4) - 20)


def drawn(matrices: Any, monkeypatch: pytest.MonkeyPatch, title: str = "title") -> Figure:
    """Return the figure instead of writing it."""
    caught: list[Figure] = []

    def catch(figure: Figure, stem: Path) -> list[Path]:
        caught.append(figure)
        return []

    monkeypatch.setattr(module, "save_figure", catch)
    plot_matrices(matrices, title, Path("unused"))
    return caught[0]


def test_same_matrices_same_bytes(tmp_path: Path) -> None:
    one = plot_matrices(MATRICES, "H(u)", tmp_path / "one")
    two = plot_matrices(MATRICES.copy(), "H(u)", tmp_path / "two")
    assert [path.name for path in one] == ["one.png", "one.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
    other = plot_matrices(-MATRICES, "H(u)", tmp_path / "three")
    assert other[0].read_bytes() != one[0].read_bytes()


def test_each_channel_is_drawn_as_it_is_on_one_symmetric_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figure = drawn(MATRICES, monkeypatch, "H(u) of hyena")
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["channel 0", "channel 1"]
    for axis, matrix in zip(panels, MATRICES, strict=True):
        (image,) = axis.images
        assert np.array_equal(image.get_array(), matrix)
        assert image.get_clim() == (-20.0, 20.0)
        assert axis.get_xlabel() == "input position s"
    assert panels[0].get_ylabel() == "output position t"
    assert figure.get_suptitle() == "H(u) of hyena"


def test_positive_is_red_and_negative_is_blue(monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = drawn(MATRICES, monkeypatch).axes[0].images
    red, _, blue, _ = image.to_rgba(20.0)
    assert red > blue
    red, _, blue, _ = image.to_rgba(-20.0)
    assert blue > red


def test_matrix_of_zeros_and_one_channel_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = plot_matrices(np.zeros((1, 3, 3)), "zeros", tmp_path / "plot")
    assert all(path.stat().st_size for path in paths)
    (image,) = drawn(np.zeros((1, 3, 3)), monkeypatch).axes[0].images
    assert image.get_clim() == (-1.0, 1.0)
