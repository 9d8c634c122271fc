from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mechbench.report import solve_plot as module
from mechbench.report.solve_plot import _ticks, plot_solve_curves
from mechbench.report.survival import Outcome
from report.outcomes import cells

M = 10**6
GROUPS = {
    "_late": cells([60 * M, 93 * M], [100 * M] * 3),
    "soon": cells([5 * M, 6 * M, 7 * M]),
    "never": cells([], [80 * M, 100 * M]),
}


def drawn(
    groups: dict[str, list[Outcome]],
    monkeypatch: pytest.MonkeyPatch,
    bands: bool | None = None,
    title: str = "recall",
) -> Figure:
    """Return the figure instead of writing it."""
    caught: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: caught.append(figure) or [])
    plot_solve_curves({title: groups}, Path("unused"), bands)
    return caught[0]


def test_lines_step_to_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    (axis,) = drawn(GROUPS, monkeypatch).axes
    soon, late, never = (
        next(line for line in axis.lines if text in line.get_label())
        for text in ("soon, 3 of 3", "_late, 2 of 5", "never, 0 of 2")
    )
    left, right = axis.get_xlim()
    assert soon.get_xdata().tolist() == [left, 5 * M, 6 * M, 7 * M, right]  # solved for good
    assert soon.get_ydata() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert soon.get_markevery() == [1, 2, 3]
    assert late.get_xdata()[-1] == 100 * M
    assert late.get_ydata()[-1] == pytest.approx(0.4)
    assert never.get_ydata().tolist() == [0] * 4
    assert axis.get_xscale() == "log"
    ticks = [line for line in axis.lines if line.get_marker() == "|" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in ticks] == [[], [100 * M], [80 * M, 100 * M]][1:]


def test_the_legend_has_the_best_first_and_all_names(monkeypatch: pytest.MonkeyPatch) -> None:
    (axis,) = drawn(GROUPS, monkeypatch).axes
    legend = axis.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "soon, 3 of 3",
        "_late, 2 of 5",
        "never, 0 of 2",
        "given up, not solved",
    ]
    (alone,) = drawn({"soon": GROUPS["soon"]}, monkeypatch).axes
    assert [text.get_text() for text in alone.get_legend().get_texts()] == ["soon, 3 of 3"]


def test_bands_of_few_groups_or_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {str(i): GROUPS["soon"] for i in range(12)}
    assert len(drawn(GROUPS, monkeypatch).axes[0].collections) == 3
    assert not drawn(GROUPS, monkeypatch, bands=False).axes[0].collections
    assert not drawn(many, monkeypatch).axes[0].collections
    assert len(drawn(many, monkeypatch, bands=True).axes[0].collections) == 12


def test_nothing_is_cut_by_the_edge_of_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {f"{i}-{'W' * 80}$_{{": GROUPS["_late"] for i in range(20)}
    figure = drawn(groups, monkeypatch, title="recall, " * 40)
    FigureCanvasAgg(figure).draw()
    (axis,) = figure.axes
    shown = [*axis.get_legend().get_texts(), axis._left_title, *axis.get_xticklabels()]
    boxes = [text.get_window_extent() for text in shown]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= figure.bbox.y1


def test_same_outcomes_same_bytes(tmp_path: Path) -> None:
    one = plot_solve_curves({"recall": GROUPS}, tmp_path / "one")
    two = plot_solve_curves({"recall": dict(reversed(GROUPS.items()))}, tmp_path / "two")
    assert [path.name for path in one] == ["one.png", "one.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_no_group_is_refused(tmp_path: Path) -> None:
    for panels in ({}, {"recall": GROUPS, "induction": {}}):
        with pytest.raises(ValueError, match="no group"):
            plot_solve_curves(panels, tmp_path / "none")


def test_a_label_looks_the_same_in_every_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: caught.append(figure) or [])
    panels = {"recall": GROUPS, "induction": {"soon": GROUPS["_late"]}, "mqar": GROUPS}
    plot_solve_curves(panels, Path("unused"))
    axes = caught[0].axes
    assert [axis._left_title.get_text() for axis in axes] == list(panels)
    lines = [next(x for x in axis.lines if "soon" in x.get_label()) for axis in axes]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 1
    assert len({axis.get_position().x0 for axis in axes}) == 2  # two columns


@given(st.floats(1, 1e9), st.floats(2.56, 1e7))
def test_some_round_numbers_are_on_every_axis(left: float, factor: float) -> None:
    ticks = _ticks(left, left * factor)
    assert 1 <= len(ticks) <= 7
    assert all(left <= t <= left * factor for t in ticks)
    apart = [math.log(b / a) / math.log(factor) for a, b in itertools.pairwise(ticks)]
    assert min(apart, default=1) >= 0.11
