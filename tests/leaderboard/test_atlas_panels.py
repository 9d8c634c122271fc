from __future__ import annotations

from pathlib import Path

from mechbench.leaderboard.atlas import Atlas, Entry
from mechbench.leaderboard.atlas_panels import draw_panels_of
from mechbench.report.solving import Cell, Solving
from mechbench.report.survival import Outcome


def test_a_panel_an_operator_and_a_row_a_task(tmp_path: Path) -> None:
    entries = {}
    operators = tuple("abcde")
    for number, operator in enumerate(operators):
        solved = number < 4
        solving = Solving((Cell(Outcome(10 + number, solved)),))
        entries[operator, "recall at 64"] = Entry(10 + number, solved, solving)
    entries["a", "induction at 64"] = Entry(5, True, Solving((Cell(Outcome(5, True)),)))
    found = Atlas(operators, ("recall at 64", "induction at 64"), entries)
    png, svg = draw_panels_of(found, tmp_path / "panels")
    drawn = svg.read_text()
    assert drawn.count("<!-- recall at 64 -->") == 2  # at the left of both rows of panels
    for operator in operators:
        assert f"<!-- {operator} -->" in drawn
    assert "<!-- 100x -->" in drawn
    assert draw_panels_of(found, tmp_path / "again")[0].read_bytes() == png.read_bytes()
