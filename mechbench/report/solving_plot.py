"""Solve curves of sections, a panel a setting and trained length. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mechbench.report.aggregate import Section
from mechbench.report.log_rank import Groups
from mechbench.report.solve_plot import plot_solve_curves


def draw_solving(sections: Sequence[Section], stem: Path) -> list[Path]:
    """Draw STEM.png and STEM.svg and return them; nothing where nothing is solved.

    Left out are settings and trained lengths at which nothing is solved: every line would lie at
    0. Those that failed or look ahead are left out as they are of the tests.

    Raises:
        ResultError: a file cannot be written.
    """
    panels: dict[str, Groups] = {
        f"{section.title}, trained at {length}": section.solvers(length)
        for section in sections
        for length in section.races
    }
    return plot_solve_curves(panels, stem) if panels else []
