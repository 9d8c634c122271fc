"""Stored results of known operators at the points of a suite. No torch."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from mechbench.plan.battery import one_of_each
from mechbench.plan.suite import Suite
from mechbench.record.config import Config
from mechbench.record.results import NOT_RUN
from mechbench.report.collect import collect
from mechbench.report.rows import Row, identity

# What may differ between results that are compared: what is chosen for each operator, how far a
# cell was to go, and the machine.
FREE = ("lr", "budget_tokens", "device_type", "dtype", "max_seqlen")
_COARSE = ("task", "seqlen", "vocab_size", "d_model")
OF_OPERATOR = ("operator", "operator_options", "plugins", "sources")


def known_rows(suite: Suite, boards: Sequence[Path]) -> list[Row]:
    """Return the rows of boards that stand at the points of a suite, for its own operators.

    Tasks, their versions, the protocol, all settings but `FREE` and the operators' options must be
    those of the suite.

    Args:
        suite: with the known operators.
        boards: files results.csv.

    Raises:
        ConfigError: the suite names what does not exist.
        ResultError: a board cannot be read.
    """
    if not boards:
        return []
    lengths = defaultdict(set)
    wanted = set()
    for cell in one_of_each(suite).cells("cpu", "float32"):
        lengths[identity(cell.config, FREE)].add(tuple(cell.config.eval_seqlens))
        wanted.add(tuple(str(getattr(cell.config, name)) for name in _COARSE))
    near = [path for path in boards if _holds(path, wanted)]
    rows, _ = collect(near) if near else ([], [])
    return [row for row in rows if row.status != NOT_RUN and _matches(row.config, lengths)]


def task_of(config: Config) -> str:
    """Return what the results of all operators at a task have in common."""
    return identity(config, (*FREE, *OF_OPERATOR))


def dates(rows: Iterable[Row]) -> tuple[str, str]:
    """Return the days of the oldest and of the newest result; empty without one."""
    found = sorted(str(row.data["provenance"].get("date") or "")[:10] for row in rows)
    return (found[0], found[-1]) if found else ("", "")


def _holds(path: Path, wanted: Collection[tuple[str, ...]]) -> bool:
    """Say whether a board has a row of wanted tasks, which is sooner told than all is read."""
    with path.open(encoding="utf-8", newline="") as file:
        return any(tuple(map(row.get, _COARSE)) in wanted for row in csv.DictReader(file))


def _matches(config: Config, lengths: Mapping[str, Collection[tuple[int, ...]]]) -> bool:
    """Say whether a configuration is one of those whose lengths of scoring are given."""
    known = lengths.get(identity(config, FREE), ())
    # What chooses a rate is scored where it was trained alone.
    return bool(known) if config.tunes else tuple(config.eval_seqlens) in known
