from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.errors import ConfigError, ResultError
from mechbench.leaderboard.board import find_boards, read_board
from mechbench.leaderboard.store import write_rows


def test_boards_are_found_and_empty_folders_refused(folder: Path, tmp_path: Path) -> None:
    assert find_boards(folder.parent) == [folder]
    assert find_boards(folder) == [folder]
    with pytest.raises(ConfigError, match="does not exist"):
        find_boards(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"no results\.csv"):
        find_boards(tmp_path)
    write_rows(folder / "results.csv", [])
    with pytest.raises(ResultError, match="holds no result"):
        read_board(folder)
