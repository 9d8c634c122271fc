from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from leaderboard.conftest import SUITE, Make
from mechbench.errors import ConfigError, ResultError
from mechbench.leaderboard.board import find_boards, read_board
from mechbench.leaderboard.build import build_board
from mechbench.leaderboard.submit import submit
from mechbench.plan.suite_file import read_suite
from mechbench.record.config import TUNING_SEED
from mechbench.report.results_csv import write_rows
from mechbench.report.rows import rows_of
from mechbench.sweep.execute import look
from mechbench.training.cell import run


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


def test_a_board_of_a_suite_that_chooses_rates(tmp_path: Path) -> None:
    """Swept for real: the board chooses what the sweep chose, and counts what that took."""
    path = tmp_path / "mine.toml"
    # Three rates, so that one is dropped half way; the lowest learns nothing within the budget.
    path.write_text(SUITE.replace("seeds", "lrs = [1e-6, 4e-3, 1.6e-2]\nseeds"))
    suite, out, folder = read_suite(path), tmp_path / "runs", tmp_path / "boards" / "mine"
    while todo := look(suite, out, device="cpu").plan.todo:
        for cell in todo:
            run(**cell.call, device="cpu", out=out, quiet=True)
    plan = look(suite, out, device="cpu").plan
    done = submit([out], folder, path)
    assert (done.added, done.elsewhere, done.refused, done.not_run) == (plan.total, 0, (), 0)
    board = read_board(folder)
    points = {p.label: p for section in board.sections for p in section.points}
    chosen = {c.config.operator: c.config.lr for c in plan.done if not c.config.tunes}
    assert {label: float(p.cost.lr) for label, p in points.items()} == chosen
    assert {p.n_seeds for p in points.values()} == {2}
    assert {p.cost.tuning_trials for p in points.values()} == {3}, "the same for every operator"
    spent = {
        label: sum(
            row.data["train_tokens"]
            for row in board.rows
            if row.config.tunes and row.config.operator == label
        )
        for label in points
    }
    assert {label: p.cost.tuning_tokens for label, p in points.items()} == spent
    assert all(spent[label] <= 3 * 5760 for label in points)
    assert all(p.results == 2 for p in (point.cost for point in points.values()))
    # Without one of the cells that chose, nothing stands: it and the reported ones are missing.
    (gone,) = [c for c in plan.done if c.config.tunes and c.config.lr == 1.6e-2][:1]
    shutil.rmtree(out / gone.cell_id)
    less = submit([out], tmp_path / "boards" / "less", path)
    assert less.not_run >= 1
    build_board(board)
    assert "(edge)" in (folder / "table.md").read_text() or min(chosen.values()) == 4e-3
    assert "These 6 cells" in (folder / "README.md").read_text()


def test_a_board_of_a_search_alone_is_none(tmp_path: Path, make: Make) -> None:
    folder = tmp_path / "boards" / "mine"
    folder.mkdir(parents=True)
    write_rows(folder / "results.csv", rows_of(make(seed=TUNING_SEED)))
    with pytest.raises(ResultError, match="holds only results that choose learning rates"):
        read_board(folder)
