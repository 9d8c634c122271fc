from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mechbench.report import reach as module
from mechbench.report.reach import plot_reach

NORMS = np.array([4.0, 2.0, 1.0, 1.0])


def test_norms_and_their_running_share_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: caught.append(figure) or [])
    plot_reach(NORMS, "title", Path("unused"))
    left, right = caught[0].axes
    assert list(left.lines[0].get_ydata()) == [4, 2, 1, 1]
    assert list(right.lines[0].get_ydata()) == [0.5, 0.75, 0.875, 1]
    assert left.get_yscale() == "log"


@pytest.mark.parametrize("norms", [NORMS, np.array([1.0, 0.0, 0.0]), np.zeros(2), np.ones(1)])
def test_same_norms_same_bytes(norms: np.ndarray, tmp_path: Path) -> None:
    one = plot_reach(norms, "reach", tmp_path / "one")
    two = plot_reach(norms.copy(), "reach", tmp_path / "two")
    assert [path.name for path in one] == ["one.png", "one.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
