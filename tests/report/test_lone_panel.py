from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from mechbench.report.aggregate import aggregate
from mechbench.report.collect import collect
from mechbench.report.lone_panel import lone_panel
from mechbench.report.style import styles

Store = Callable[..., Path]


def test_a_row_for_each_label_and_each_reference(store: Store, tmp_path: Path) -> None:
    store({64: 0.9})
    store({64: 0.3}, operator="attention")
    store({}, operator="lost", status="out-of-memory")
    (section,) = aggregate(collect([tmp_path / "runs"])[0])
    axis = Figure().add_subplot()
    names = {label: label.upper() for label in section.curves}
    chance = ("a guess", "#777777", "--", {64: 0.1})
    lone_panel(axis, section, styles(section.curves), names, [chance, ("no", "#777777", ":", {})])
    rows = [text.get_text() for text in axis.get_yticklabels()]
    assert rows == ["HYENA", "ATTENTION", "LOST: failed", "a guess"]
    top, bottom = axis.get_ylim()[::-1]
    assert top < 0 < 3 < bottom, "the best is on top"
    drawn = [tuple(map(float, xy)) for line in axis.get_lines() for xy in line.get_xydata()]
    assert {(0.9, 0.0), (0.3, 1.0), (0.0, 2.0), (0.1, 3.0)} <= set(drawn)
    (hyena,) = section.curves["hyena"]
    assert {(hyena.ci_low, 0.0), (hyena.ci_high, 0.0)} <= set(drawn)
