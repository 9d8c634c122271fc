"""Results added to a leaderboard: read, judged, and merged with what is there."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechbench.atomic import make_folder, write_text
from mechbench.errors import ConfigError, ResultError
from mechbench.leaderboard.board import SUITE
from mechbench.leaderboard.store import FILE, read_rows, write_rows
from mechbench.leaderboard.validate import faults
from mechbench.report.collect import Row, age, identity, newest, rows_of
from mechbench.resolve import task_of
from mechbench.results import NOT_RUN, SCHEMA_VERSION, find_results, read_result
from mechbench.spec import Config
from mechbench.suite import Suite
from mechbench.suite_file import read_suite
from mechbench.sweep.plan import make_plan

# What a result may have of its own at a point of a suite.
_FREE = (
    "operator", "operator_options", "lr", "eval_seqlens", "plugins", "sources", "dtype",
    "device_type",
)  # fmt: skip


@dataclass(frozen=True)
class Submission:
    """What became of the files handed in.

    Attributes:
        added: results that are in the leaderboard now and were not before.
        known: results that were there already.
        elsewhere: results of no point of the suite, left out.
        refused: one line a fault.
        not_run: cells that the suite plans and nobody ran.
    """

    added: int
    known: int
    elsewhere: int
    refused: tuple[str, ...]
    not_run: int


def submit(
    paths: Sequence[Path],
    folder: Path,
    suite_path: Path | None = None,
    *,
    without_refused: bool = False,
) -> Submission:
    """Add the results at or below `paths` to the leaderboard in `folder`.

    Args:
        paths: result.json files, or folders of them.
        folder: leaderboards/NAME; created if need be.
        suite_path: the suite; by default the copy that lies in `folder`.
        without_refused: add the others where some are refused, in place of nothing; the refused
            cells then stand in the leaderboard as not run.

    Raises:
        ConfigError: the suite cannot be read or resolved, or `folder` cannot be written.
        ResultError: a path holds no result, or what is stored is damaged.
    """
    source = suite_path or folder / SUITE
    if suite_path is None and not source.exists():
        raise ConfigError(f"{folder} has no {SUITE}: name the suite with --suite tasks/NAME.toml")
    suite = read_suite(source)
    cells = [cell.config for cell in suite.cells("cpu")]
    points = {_point(config) for config in cells}
    judged, refused, elsewhere = [], [], 0
    for path in find_results(*paths):
        data, wrong = _read(path)
        if not wrong and _point(Config.from_dict(data["config"])) not in points:
            elsewhere += 1
        elif wrong:
            refused += [f"{path}: {fault}" for fault in wrong]
        else:
            judged.append(data)
    if refused and not without_refused:
        return Submission(0, 0, elsewhere, tuple(refused), 0)
    stored = read_rows(folder / FILE) if (folder / FILE).exists() else []
    before = {row.data["cell_id"]: row.data for row in stored if row.status != NOT_RUN}
    merged = before | {data["cell_id"]: data for data in judged}
    rows, _ = newest([rows_of(data) for data in sorted(merged.values(), key=age)])
    missing = _not_run(suite, rows)
    make_folder(folder)
    write_rows(folder / FILE, [*rows, *missing])
    if suite_path is not None:
        write_text(folder / SUITE, suite_path.read_text(encoding="utf-8"))
    new = {data["cell_id"] for data in judged} - set(before)
    absent = {row.data["cell_id"] for row in missing}
    return Submission(len(new), len(judged) - len(new), elsewhere, tuple(refused), len(absent))


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        data = read_result(path).data
    except ResultError as error:
        return {}, [str(error)]
    return data, faults(data)


def _point(config: Config) -> str:
    """Return what results of one point share: seed and the operator's own left out."""
    return identity(config, without=_FREE)


def _not_run(suite: Suite, rows: Sequence[Row]) -> list[Row]:
    """Return rows for the cells that the suite plans, on the device that most results ran on."""
    used = Counter((row.config.device_type, row.config.dtype) for row in rows)
    device_type, dtype = used.most_common(1)[0][0] if used else ("cpu", "float32")
    cells = []
    for cell in suite.cells("cpu"):
        config = dataclasses.replace(cell.config, device_type=device_type, dtype=dtype)
        cells.append(dataclasses.replace(cell, config=config, cell_id=config.cell_id))
    plan = make_plan(cells, {row.data["cell_id"]: row.data for row in rows})
    return [
        row
        for cell in (*plan.todo, *plan.waiting)
        for row in rows_of(_unknown(cell.config, cell.cell_id))
    ]


def _unknown(config: Config, cell_id: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "cell_id": cell_id,
        "status": NOT_RUN,
        "reason": "planned by the suite and not run",
        "config": config.to_dict(),
        "chance": task_of(config).chance,
        "evaluations": [],
        "provenance": {},
    }
