from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mechbench.errors import ResultError
from mechbench.report.figure import give_title, save_figure


def figure() -> Figure:
    made = Figure(figsize=(2, 2))
    axis = made.subplots()
    axis.plot([0, 1], [0, 1], marker="o", clip_on=True, label="a line")
    axis.fill_between([0, 1], [0, 0], [1, 2], hatch="/")
    axis.legend()
    return made


def test_png_and_svg_stand_beside_each_other_and_nothing_else(tmp_path: Path) -> None:
    paths = save_figure(figure(), tmp_path / "plot.v1")  # a dot is no suffix
    assert paths == [tmp_path / "plot.v1.png", tmp_path / "plot.v1.svg"]
    assert sorted(tmp_path.iterdir()) == paths
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in paths[1].read_bytes()


def test_same_figure_same_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = save_figure(figure(), tmp_path / "one")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    two = save_figure(figure(), tmp_path / "two")
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_files_tell_neither_date_nor_version(tmp_path: Path) -> None:
    png, svg = save_figure(figure(), tmp_path / "plot")
    assert b"<dc:date>" not in svg.read_bytes()
    assert b"Software" not in png.read_bytes()


def test_settings_of_matplotlib_stay_as_they_were(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    save_figure(figure(), tmp_path / "plot")
    assert dict(matplotlib.rcParams) == before


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"cannot write .*plot\.png: No such file"):
        save_figure(figure(), tmp_path / "absent" / "plot")


def test_a_title_is_no_formula_and_fits() -> None:
    figure = Figure(figsize=(4, 3), layout="constrained")
    figure.add_subplot()
    give_title(figure, "$x^{2$ _y " + 20 * "long name ")
    FigureCanvasAgg(figure).draw()
    (title,) = figure.texts
    assert title.get_text().startswith("$x^{2$ _y long")
    assert title.get_window_extent().x0 >= 0
    assert title.get_window_extent().x1 <= figure.bbox.x1
