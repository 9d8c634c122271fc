"""A leaderboard's folder, found and read. No torch."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mechbench.errors import ConfigError, ResultError
from mechbench.plan.suite import Suite
from mechbench.plan.suite_file import read_suite
from mechbench.report.aggregate import Section, aggregate
from mechbench.report.collect import levelled
from mechbench.report.results_csv import FILE, read_rows
from mechbench.report.rows import Row
from mechbench.report.selection import selected

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
    rows = levelled(read_rows(folder / FILE))
    if not rows:
        raise ResultError(f"{folder / FILE} holds no result")
    suite = read_suite(folder / SUITE) if (folder / SUITE).exists() else None
    sections = aggregate(selected(rows), hidden=("lr",))
    if not sections:
        raise ResultError(f"{folder / FILE} holds only results that choose learning rates")
    return Board(folder, rows, sections, suite)


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


def moved_suite(path: Path, folder: Path) -> str:
    """Return the text of the suite at `path` as it may lie in `folder`: its plugins stay found.

    Raises:
        ConfigError: its list of plugins is written in a way that cannot be changed.
    """
    text = path.read_text(encoding="utf-8")
    data = tomllib.loads(text)
    if not data.get("plugins"):
        return text
    found = [os.path.relpath(path.parent / name, folder) for name in data["plugins"]]
    line = f"plugins = {json.dumps(found)}"
    moved = re.sub(r"^plugins\s*=\s*\[[^\]]*\]", lambda _: line, text, count=1, flags=re.MULTILINE)
    try:
        if tomllib.loads(moved) == data | {"plugins": found}:
            return moved
    except tomllib.TOMLDecodeError:
        pass
    raise ConfigError(f"{path}: plugins: expected a line of its own: plugins = ['FILE.py']")
