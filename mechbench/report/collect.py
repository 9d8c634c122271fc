"""Stored results, of runs and boards, as rows: one a result and evaluation length. No torch."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mechbench.errors import ResultError
from mechbench.record.config import ANYTIME
from mechbench.record.results import NOT_RUN, is_decided, read_result
from mechbench.report.escape import plain
from mechbench.report.results_csv import read_rows, stored_files
from mechbench.report.rows import Row, age, identity, rows_of


def collect(paths: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """Return the rows of every result below `paths`, and a warning for each file left out.

    The order and the warnings do not depend on where the folders lie.

    Raises:
        ResultError: a path does not exist, or there is no readable result.
    """
    read: list[tuple[str, list[Row]]] = []
    warnings = []
    files, tables = stored_files(*paths)
    for path in sorted({path.resolve() for path in (*files, *tables)}):
        name = plain(f"{path.parent.name}/{path.name}")
        try:
            read += _results(path)
        except ResultError as error:
            warnings.append(f"skipped: {error.args[0].replace(str(path), name)}")
    if not read:
        raise ResultError(f"no readable result: {warnings[0]}")
    rows = [row for _, found in sorted(read, key=lambda item: item[0]) for row in found]
    kept, repeated = newest([[row] for row in levelled(rows)])
    return kept, sorted({*warnings, *repeated})


def levelled(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, those that were carried on at the largest budget of their experiment.

    A run that was solved, or that diverged, ends so with every larger budget. So it stands beside
    the other seeds and rates, which were carried on. Seeds that were carried on to different ends,
    one until it was flat, stand together, too, unless a seed has several ends itself: then budgets
    are compared. `Row.data` keeps each one's own budget.
    """
    keys = [identity(row.config, without=("lr", "budget_tokens")) for row in rows]
    most: dict[str, int] = defaultdict(int)
    ends: dict[tuple[str, float], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for key, row in zip(keys, rows, strict=True):
        config = row.config
        most[key] = max(most[key], config.budget_tokens)
        if not (config.tunes or is_decided(row.data)):
            ends[key, config.lr][config.seed].add(config.budget_tokens)
    together = {
        rate: max(map(max, of_seed.values()))
        for rate, of_seed in ends.items()
        if all(len(found) == 1 for found in of_seed.values())
    }

    def level(key: str, row: Row) -> Row:
        config = row.config
        if config.protocol < ANYTIME:
            return row
        budget = config.budget_tokens
        if is_decided(row.data):
            budget = most[key]
        elif not config.tunes:
            budget = together.get((key, config.lr), budget)
        return dataclasses.replace(row, config=dataclasses.replace(config, budget_tokens=budget))

    return [level(key, row) for key, row in zip(keys, rows, strict=True)]


def newest(results: Sequence[Sequence[Row]]) -> tuple[list[Row], list[str]]:
    """Return the rows of `results`, oldest first, without repetitions, and a warning for each.

    Later results count. What was not run gives way to any result.
    """
    warnings = []
    # Two folders may hold one cell, or one model may be scored at further lengths later: a seed
    # that counted twice would narrow the interval.
    found: dict[tuple[str, int, int], Row] = {}
    for rows in results:
        decides = identity(rows[0].config)
        for row in rows:
            key = (decides, row.config.seed, row.eval_seqlen)
            older = found.get(key)
            if older is not None and row.status == NOT_RUN:
                continue
            if older is not None and older.status != NOT_RUN and older.data != row.data:
                warnings.append(
                    f"cell {row.data['cell_id']} at length {row.eval_seqlen} is stored more than "
                    "once: the newest result counts"
                )
            found[key] = row
    return [found[key] for key in sorted(found)], warnings


def _results(path: Path) -> list[tuple[str, list[Row]]]:
    """Return a sort key and the rows of each result of a file."""
    if path.suffix != ".csv":
        data = read_result(path).data
        return [(age(data), rows_of(data))]
    found: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(path):
        found[row.data["cell_id"]].append(row)
    return [(age(rows[0].data), rows) for rows in found.values()]
