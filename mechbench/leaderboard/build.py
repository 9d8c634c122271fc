"""From results.csv to all else in a leaderboard's folder, the same bytes each time. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mechbench.atomic import write_text
from mechbench.errors import ConfigError, ResultError
from mechbench.leaderboard.plots import draw
from mechbench.leaderboard.readme import readme
from mechbench.leaderboard.store import FILE, read_rows
from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import Row
from mechbench.report.selection import selected
from mechbench.report.table import to_csv, to_markdown
from mechbench.suite import Suite
from mechbench.suite_file import read_suite

SUITE = "suite.toml"  # a copy of the suite, beside the results


@dataclass(frozen=True)
class Board:
    """A leaderboard as read: its rows, what was selected of them, and its suite if stored."""

    folder: Path
    rows: list[Row]
    sections: list[Section]
    suite: Suite | None

    @property
    def title(self) -> str:
        """Title of the suite, or the folder's name."""
        return self.suite.title if self.suite else self.folder.name


def read_board(folder: Path) -> Board:
    """Read a leaderboard's folder.

    Raises:
        ResultError: there is no results.csv, or it is damaged or empty.
        ConfigError: the copy of the suite is damaged.
    """
    rows = read_rows(folder / FILE)
    if not rows:
        raise ResultError(f"{folder / FILE} holds no result")
    suite = read_suite(folder / SUITE) if (folder / SUITE).exists() else None
    return Board(folder, rows, aggregate(selected(rows), hidden=("lr",)), suite)


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


def find_boards(root: Path) -> list[Path]:
    """Return the folders at or below `root` that hold a results.csv, sorted.

    Raises:
        ConfigError: `root` does not exist, or there is none.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} does not exist: expected a folder of leaderboards")
    found = sorted(path.parent for path in [*root.glob(FILE), *root.glob(f"*/{FILE}")])
    if not found:
        raise ConfigError(f"no {FILE} in {root} or a folder in it")
    return found
