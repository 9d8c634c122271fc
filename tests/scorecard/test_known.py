from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.leaderboard.shipped import shipped_boards
from mechbench.plan.battery import of_tasks, one_of_each
from mechbench.plan.suite import Suite
from mechbench.plan.suite_file import read_suite
from mechbench.plan.suite_names import find_suite
from mechbench.report.rows import Row
from mechbench.scorecard.known import dates, known_rows, task_of


def mad() -> list[Path]:
    return [path for path in shipped_boards() if path.parent.name == "mad"]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return of_tasks(read_suite(find_suite("card")), ["compression"])


@pytest.fixture(scope="module")
def rows(suite: Suite) -> list[Row]:
    return known_rows(suite, mad())


def test_every_known_operator_is_there_with_its_trials(suite: Suite, rows: list[Row]) -> None:
    reported = [row for row in rows if not row.config.tunes]
    assert {row.config.operator for row in reported} == {o.name for o in suite.operators}
    assert {row.config.task for row in rows} == {"compression"}
    assert len({task_of(row.config) for row in rows}) == 1
    assert len(rows) > len(reported)
    oldest, newest = dates(rows)
    assert "2026-11-01" < oldest <= newest
    assert dates([]) == ("", "")


def test_another_setting_is_not_comparable(suite: Suite) -> None:
    (task,) = suite.tasks
    wider = {**task.settings, "d_model": 64}
    other = type(task)(task.name, task.where, task.options, wider)
    changed = type(suite)(**{**vars(suite), "tasks": (other,)})
    assert known_rows(changed, mad()) == []
    assert known_rows(suite, []) == []


QUICK = {"mad", "arithmetic", "induction-vs-length"}
BOARDS = QUICK | {"recall-vs-length", "recall-distance", "length-generalisation"}


@pytest.mark.parametrize(("name", "boards"), [("card", BOARDS), ("card-quick", QUICK)])
def test_every_point_of_the_battery_was_run_by_every_known_operator(
    name: str, boards: set[str]
) -> None:
    suite = read_suite(find_suite(name))
    wanted = {
        (task_of(cell.config), cell.config.operator)
        for cell in one_of_each(suite).cells("cpu", "float32")
    }
    found = known_rows(suite, [p for p in shipped_boards() if p.parent.name in boards])
    assert {(task_of(row.config), row.config.operator) for row in found} == wanted
