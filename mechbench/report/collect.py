"""Stored results as rows, one a result and evaluation length. No torch."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mechbench.errors import ResultError
from mechbench.record.config import ANYTIME, Config, canonical_json
from mechbench.record.results import NOT_RUN, STATUSES, find_results, is_decided, read_result
from mechbench.report.escape import plain

NAN = "nan"  # outputs at a length that are not finite, of a result that is "ok" otherwise
OUTCOMES = (*STATUSES, NAN, NOT_RUN)


@dataclass(frozen=True)
class Row:
    """A result at one length; `evaluation` is None where it failed before being scored there."""

    config: Config
    data: dict[str, Any]
    eval_seqlen: int
    evaluation: dict[str, Any] | None

    @property
    def status(self) -> str:
        """Status of the whole result."""
        return str(self.data["status"])

    @property
    def outcome(self) -> str:
        """Status at this length: that of the result, or NAN."""
        return NAN if self.status == "ok" and self.non_finite else self.status

    @property
    def non_finite(self) -> int:
        """Scored positions there whose outputs were not finite."""
        return int((self.evaluation or {}).get("non_finite") or 0)

    @property
    def accuracy(self) -> float | None:
        """Accuracy there; None if not scored, of a diverged run or with outputs not finite."""
        if self.evaluation is None or self.status == "diverged" or self.non_finite:
            return None
        return float(self.evaluation["accuracy"])


def identity(config: Config, without: Sequence[str] = ()) -> str:
    """Return what decides training, seed left out: equal for the seeds of one experiment.

    Whether looking ahead was allowed decides what is refused, not what is trained. Further settings
    can be left out, such as the learning rate.
    """
    absent = {"seed", "eval_seqlens", "allow_noncausal", *without}
    data = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in absent}
    return canonical_json(data | {"plugins": sorted(config.plugins.values())})


def collect(paths: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """Return the rows of every result below `paths`, and a warning for each file left out.

    The order and the warnings do not depend on where the folders lie.

    Raises:
        ResultError: a path does not exist, or there is no readable result.
    """
    read: list[tuple[str, list[Row]]] = []
    warnings = []
    for path in sorted({path.resolve() for path in find_results(*paths)}):
        name = plain(f"{path.parent.name}/{path.name}")
        try:
            read.append(_rows(path))
        except ResultError as error:
            warnings.append(f"skipped: {error.args[0].replace(str(path), name)}")
    if not read:
        raise ResultError(f"no readable result: {warnings[0]}")
    rows = [row for _, found in sorted(read, key=lambda item: item[0]) for row in found]
    kept, repeated = newest([[row] for row in levelled(rows)])
    return kept, sorted({*warnings, *repeated})


def levelled(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, those of decided results at the largest budget of their experiment.

    A run that was solved, or that diverged, ends so with every larger budget. So it stands beside
    the other seeds and rates, which were carried on.
    """
    keys = [identity(row.config, without=("lr", "budget_tokens")) for row in rows]
    most: dict[str, int] = defaultdict(int)
    for key, row in zip(keys, rows, strict=True):
        most[key] = max(most[key], row.config.budget_tokens)

    def level(key: str, row: Row) -> Row:
        if row.config.protocol < ANYTIME or not is_decided(row.data):
            return row
        config = dataclasses.replace(row.config, budget_tokens=most[key])
        return dataclasses.replace(row, config=config)

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


def _rows(path: Path) -> tuple[str, list[Row]]:
    """Return a sort key and the rows of one file."""
    data = read_result(path).data
    return age(data), rows_of(data)


def age(data: dict[str, Any]) -> str:
    """Return what results are sorted by: their date, whether they ended well, their content."""
    ended_well = data["status"] == "ok"  # a refused run and the same allowed one take a second
    return f"{data['provenance'].get('date')} {ended_well} {canonical_json(data)}"


def rows_of(data: dict[str, Any]) -> list[Row]:
    """Return the rows of a result that the schema found sound, one a length.

    Raises:
        ConfigError: its configuration does not fit this version.
    """
    config = Config.from_dict(data["config"])
    scored = {e["seqlen"]: e for e in data["evaluations"]}
    lengths = sorted({config.seqlen, *config.eval_seqlens, *scored})
    return [Row(config, data, length, scored.get(length)) for length in lengths]
