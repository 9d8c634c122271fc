"""Building a leaderboard's folder from its results.csv, the same bytes each time. No torch."""

from __future__ import annotations

from pathlib import Path

from mechbench.leaderboard.board import Board
from mechbench.leaderboard.plots import draw
from mechbench.leaderboard.readme import readme
from mechbench.record.files import write_text
from mechbench.report.table import to_csv, to_markdown


def build_board(board: Board) -> list[Path]:
    """Write table.md, table.csv, README.md and the plots; return all files.

    Raises:
        ResultError: a file cannot be written.
    """
    folder, sections = board.folder, board.sections
    plots = draw(sections, folder)
    question = board.suite.question if board.suite else ""
    texts = {
        "table.md": to_markdown(sections, [], heading=board.title),
        "table.csv": to_csv(sections),
        "README.md": readme(board.title, question, board.rows, sections, plots),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [*(folder / name for name in texts), *plots]
