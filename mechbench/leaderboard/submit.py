"""Results added to a leaderboard: read, judged, and merged with what is there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mechbench.errors import BusyError, ConfigError, ResultError
from mechbench.leaderboard.board import SUITE, moved_suite
from mechbench.leaderboard.copies import copies
from mechbench.leaderboard.truth import Truths
from mechbench.leaderboard.validate import faults
from mechbench.plan.resolve import task_of
from mechbench.plan.suite import Suite
from mechbench.plan.suite_file import read_suite
from mechbench.record.config import PROTOCOL, Config
from mechbench.record.files import make_folder, write_text
from mechbench.record.results import NOT_RUN, SCHEMA_VERSION, find_results, read_result
from mechbench.report.collect import newest
from mechbench.report.results_csv import FILE, read_rows, write_rows
from mechbench.report.rows import Row, age, identity, rows_of
from mechbench.sweep.plan import make_plan

# What a result may have of its own at a point of a suite.
_FREE = ("lr", "eval_seqlens", "max_seqlen", "plugins", "sources", "dtype", "device_type")
_OPERATOR = ("operator", "operator_options")
_PATIENCE_S = 600.0  # for another submission to finish


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
    planned: bool = False,
    without_refused: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Submission:
    """Add the results at or below `paths` to the leaderboard in `folder`.

    The baselines stored beside them are computed again from the task.

    Args:
        paths: result.json files, or folders of them.
        folder: leaderboards/NAME; created if need be.
        suite_path: the suite; by default the copy that lies in `folder`.
        planned: take only operators, and options of theirs, that the suite plans.
        without_refused: add the others where some are refused, in place of nothing; the refused
            cells then stand in the leaderboard as not run.
        say: told what takes long.

    Raises:
        ConfigError: the suite cannot be read or resolved, `folder` cannot be written, or it holds
            results of another protocol.
        ResultError: a path holds no result, or what is stored is damaged.
        BusyError: another submission holds the leaderboard for long.
    """
    source = suite_path or folder / SUITE
    if suite_path is None and not source.exists():
        raise ConfigError(f"{folder} has no {SUITE}: name the suite with --suite NAME")
    suite = read_suite(source)
    free = _FREE if planned else (*_FREE, *_OPERATOR)
    points = {
        _point(dataclasses.replace(cell.config, budget_tokens=budget), free)
        for cell in suite.cells("cpu")  # of both kinds
        for budget in cell.budgets
    }
    judged, refused, elsewhere = _judge(find_results(*paths), points, free, Truths(say))
    with _held(folder):
        stored = read_rows(folder / FILE) if (folder / FILE).exists() else []
        if others := sorted({row.config.protocol for row in stored} - {PROTOCOL}):
            raise ConfigError(
                f"{folder} holds results of protocol {', '.join(map(str, others))}: those of "
                f"protocol {PROTOCOL} are not mixed with them; choose another folder"
            )
        before = {row.data["cell_id"]: row.data for row in stored if row.status != NOT_RUN}
        repeated = copies((data for _, data in judged), list(before.values()))
        refused += [
            f"{path}: {fault}"
            for path, data in judged
            for fault in repeated.get(data["cell_id"], ())
        ]
        if refused and not without_refused:
            return Submission(0, 0, elsewhere, tuple(refused), 0)
        fresh = [data for _, data in judged if data["cell_id"] not in repeated]
        found = [*before.values(), *fresh]
        # Of one cell the furthest counts, then the newest.
        merged = {data["cell_id"]: data for data in sorted(found, key=_how_far)}
        rows, _ = newest([rows_of(data) for data in sorted(merged.values(), key=age)])
        rows, _ = newest(
            [*([row] for row in rows), *_not_run(suite, rows)]
        )  # where no other result stands
        make_folder(folder)
        write_rows(folder / FILE, rows)
        if suite_path is not None:
            write_text(folder / SUITE, moved_suite(suite_path, folder))
    new = {data["cell_id"] for data in fresh}
    absent = {row.data["cell_id"] for row in rows if row.status == NOT_RUN}
    return Submission(
        len(new - set(before)), len(new & set(before)), elsewhere, tuple(refused), len(absent)
    )


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a leaderboard for one reader who writes, by a lock beside its folder.

    Raises:
        BusyError: somebody else holds it for longer than a submission takes.
        ConfigError: the lock cannot be made, or is a symbolic link.
    """
    folder = folder.absolute()
    make_folder(folder.parent)
    path = folder.parent / f".{folder.name}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise BusyError(
            f"{folder} is in use by another submission: wait for it to end, then submit again"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot lock {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _judge(
    files: Sequence[Path], points: Set[str], free: Sequence[str], truths: Truths
) -> tuple[list[tuple[Path, dict[str, Any]]], list[str], int]:
    """Return the sound results with their files, a line a fault, and how many belong elsewhere."""
    judged, refused, elsewhere = [], [], 0
    for path in files:
        data, wrong = _read(path)
        if not wrong and _point(Config.from_dict(data["config"]), free) not in points:
            elsewhere += 1
            continue
        wrong = wrong or truths.faults(data)
        if wrong:
            refused += [f"{path}: {fault}" for fault in wrong]
        else:
            judged.append((path, truths.corrected(data)))
    return judged, refused, elsewhere


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        data = read_result(path).data
    except ResultError as error:
        return {}, [str(error).removeprefix(f"{path} ")]
    return data, faults(data)


def _point(config: Config, free: Sequence[str]) -> str:
    """Return what results of one point share: seed and what is free left out.

    A cell that chooses a learning rate may end before the budget.
    """
    if config.tunes:
        return "tuning " + identity(config, without=(*free, "budget_tokens"))
    return identity(config, without=free)


def _not_run(suite: Suite, rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of what the suite plans beyond, on the device that most results ran on."""
    used = Counter((row.config.device_type, row.config.dtype) for row in rows)
    device_type, dtype = used.most_common(1)[0][0] if used else ("cpu", "float32")
    cells = []
    for cell in suite.cells("cpu"):
        config = dataclasses.replace(cell.config, device_type=device_type, dtype=dtype)
        cells.append(dataclasses.replace(cell, config=config, cell_id=config.cell_id))
    stored = {row.data["cell_id"]: row.data for row in rows}
    plan = make_plan(cells, stored, by_rows=False)
    # A cell whose result is of a smaller budget stands there already, with that budget.
    planned = [cell for cell in (*plan.todo, *plan.waiting) if cell.cell_id not in stored]
    return [rows_of(_unknown(cell.config, cell.cell_id)) for cell in planned]


def _how_far(data: dict[str, Any]) -> tuple[int, str]:
    return data["config"]["budget_tokens"], age(data)


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
