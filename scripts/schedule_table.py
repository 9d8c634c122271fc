"""The lines of `ablate_schedules.py`, and what they say: shares solved, tokens to solve, ranks."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import rankdata

Row = dict[str, Any]
Pair = tuple[str, str, str]  # operator, task, and what else cells must have in common
MARKS = (5.0, 20.0, 100.0)  # million tokens


def key_of(cell: dict[str, Any]) -> str:
    """Return the identity of a cell."""
    return json.dumps(cell, sort_keys=True)


def read(path: Path) -> list[Row]:
    """Return the lines of a file, the last one of each cell; what was cut off is left out."""
    rows: dict[str, Row] = {}
    if not path.exists():
        return []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            rows[key_of(row["cell"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return list(rows.values())


def solved_tokens(row: Row) -> float:
    """Return the tokens at which a cell was solved, infinite if it was not."""
    return math.inf if row["solved_tokens"] is None else float(row["solved_tokens"])


def share_by(rows: Sequence[Row], tokens: float) -> float:
    """Return the share solved by then."""
    return sum(solved_tokens(row) <= tokens for row in rows) / len(rows)


def merit(rows: Sequence[Row]) -> tuple[float, float]:
    """Return what schedules are ranked by, the least first: share not solved, median tokens."""
    return 1 - share_by(rows, sys.float_info.max), statistics.median(map(solved_tokens, rows))


def accuracy(rows: Iterable[Row]) -> float:
    """Return the mean of the last validation accuracies."""
    return statistics.fmean(row["validations"][-1][1] if row["validations"] else 0 for row in rows)


def best_lr(rows: Sequence[Row]) -> float:
    """Return the rate that solves most, then soonest, then comes farthest, then the smallest."""
    by_lr = _by(rows, "lr")
    return min(by_lr, key=lambda lr: (*merit(by_lr[lr]), -accuracy(by_lr[lr]), lr))


def table(rows: Sequence[Row], marks: Sequence[float] = MARKS) -> str:
    """Return the tables as text.

    Args:
        rows: from `read`.
        marks: million tokens by which the share solved is given.
    """
    errors = [row for row in rows if "error" in row]
    rows = [row for row in rows if "error" not in row]
    if not rows:
        return f"no finished cells, {len(errors)} errors\n"
    groups: dict[Pair, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cell = row["cell"]
        groups[cell["operator"], cell["task"], setting_of(row)][cell["schedule"]].append(row)
    several = len({setting for _, _, setting in groups}) > 1
    lines, reported = [], {}
    for pair, by_schedule in groups.items():
        operator, task, setting = pair
        reported[pair] = chosen = {
            schedule: found
            for schedule, cells in by_schedule.items()
            if (found := report_of(cells)) is not None
        }
        if not chosen:
            continue
        lines += [f"{operator} on {task}" + f", {setting}" * several, heading(marks)]
        lines += [line(schedule, *chosen[schedule], marks) for schedule in chosen]
        lines.append("")
    lines += overall(reported, marks)
    if errors:
        lines += ["", f"{len(errors)} cells ended with an error, the first: {errors[0]['error']}"]
    if any(note for found in reported.values() for _, _, note in found.values()):
        lines += ["", "* the rate was chosen on the seeds that are reported"]
    return "\n".join(lines) + "\n"


def setting_of(row: Row) -> str:
    """Return what cells have in common that may be compared, beside operator and task."""
    varied = ("operator", "task", "schedule", "lr", "seed", "tuning")
    rest = {key: value for key, value in row["cell"].items() if key not in varied}
    rest |= {"dtype": row["dtype"]} if "dtype" in row else {}
    return " ".join(f"{key}={value}" for key, value in sorted(rest.items()))


def report_of(cells: Sequence[Row]) -> tuple[list[Row], int, str] | None:
    """Return the cells of a schedule at its best rate, the rates tried, and "*" if not apart."""
    tuning = [row for row in cells if row["tuning"]]
    others = [row for row in cells if not row["tuning"]]
    lr = best_lr(tuning or others)
    found = [row for row in others if row["lr"] == lr]
    tried = len({row["lr"] for row in tuning or others})
    return (found, tried, "*" if not tuning and tried > 1 else "") if found else None


def heading(marks: Sequence[float]) -> str:
    shares = "".join(f"{f'by {mark:g} M':>11}" for mark in marks)
    ends = f"{'median M':>10}{'accuracy':>10}"
    return f"  {'schedule':<28}{'lr':>9}{'rates':>6}{'seeds':>6}{shares}{ends}"


def line(schedule: str, rows: Sequence[Row], tried: int, note: str, marks: Sequence[float]) -> str:
    shares = "".join(f"{share_by(rows, mark * 1e6):>11.0%}" for mark in marks)
    median = statistics.median(map(solved_tokens, rows))
    told = f"{median / 1e6:.2f}" if math.isfinite(median) else "-"
    lr = f"{rows[0]['lr']:g}{note}"
    diverged = sum(row["diverged"] for row in rows)
    return (
        f"  {schedule:<28}{lr:>9}{tried:>6}{len(rows):>6}{shares}{told:>10}{accuracy(rows):>10.3f}"
        + f"  {diverged} diverged" * bool(diverged)
    )


def overall(
    reported: dict[Pair, dict[str, tuple[list[Row], int, str]]], marks: Sequence[float]
) -> list[str]:
    """Return the lines of the last table, over the pairs that every schedule has."""
    names = sorted({name for found in reported.values() for name in found})
    pairs = [found for found in reported.values() if set(found) == set(names)]
    lines = [
        f"over {len(pairs)} of {len(reported)} pairs of operator and task, those that all have"
    ]
    if not pairs:
        return lines
    ranks: dict[str, list[float]] = defaultdict(list)
    for found in pairs:
        merits = [merit(found[name][0]) for name in names]
        order = [sorted(set(merits)).index(m) for m in merits]
        for name, rank in zip(names, rankdata(order), strict=True):
            ranks[name].append(float(rank))
    shares = "".join(f"{f'by {mark:g} M':>11}" for mark in marks)
    lines.append(f"  {'schedule':<28}{'mean rank':>10}{'cells':>6}{shares}{'median M':>10}")
    for name in sorted(names, key=lambda name: statistics.fmean(ranks[name])):
        cells = [row for found in pairs for row in found[name][0]]
        told = "".join(f"{share_by(cells, mark * 1e6):>11.0%}" for mark in marks)
        median = statistics.median(map(solved_tokens, cells))
        middle = f"{median / 1e6:.2f}" if math.isfinite(median) else "-"
        rank = statistics.fmean(ranks[name])
        lines.append(f"  {name:<28}{rank:>10.2f}{len(cells):>6}{told}{middle:>10}")
    return lines


def _by(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return found
