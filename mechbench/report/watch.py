"""Live curves of runs as text: what `mechbench watch` shows. No torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechbench.errors import ResultError
from mechbench.record.results import STATUSES, read_json
from mechbench.report.escape import plain

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS = ("run", "step", "budget", "loss", "train", "validation", "status", "training accuracy")
_WIDEST = 100  # characters of a run's name


@dataclass(frozen=True)
class Logged:
    """A row of metrics.csv."""

    step: int
    tokens: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    validation_dense_accuracy: float | None = None  # over every predictable position
    branch: bool = False  # of steps that were undone


@dataclass(frozen=True)
class Watched:
    """One run as its files stand: rows of metrics so far, status once it has ended."""

    name: str
    rows: list[Logged]
    budget_tokens: int
    status: str


def read_runs(root: Path) -> tuple[list[Watched], list[str]]:
    """Return the runs below `root`, the last changed first, and a warning for each damaged one.

    Raises:
        ResultError: `root` does not exist, or holds no readable run.
    """
    if not root.is_dir():
        raise ResultError(f"{root} does not exist: expected a folder of runs")
    found, warnings = [], []
    for path in sorted(root.rglob("config.json")):
        try:
            found.append(_read(path.parent))
        except ResultError as error:
            folder = str(path.parent)
            warnings.append(f"skipped: {plain(str(error).replace(folder, path.parent.name))}")
    if not found:
        raise ResultError(warnings[0] if warnings else f"no run below {root}")
    runs = [run for _, run in sorted(found, key=lambda item: (-item[0], item[1].name))]
    return runs, warnings


def _read(folder: Path) -> tuple[float, Watched]:
    """Return when a run last changed, and the run.

    Raises:
        ResultError: one of its files is damaged.
    """
    config, result, metrics = (folder / f for f in ("config.json", "result.json", "metrics.csv"))
    settings = read_json(config)
    texts = [_field(config, settings, name, str) for name in ("operator", "task")]
    seqlen, seed = (_field(config, settings, name, int) for name in ("seqlen", "seed"))
    budget = _field(config, settings, "budget_tokens", int)
    if budget < 1:
        raise ResultError(f"{config} is damaged: budget_tokens is {budget}: expected 1 or more")
    status = "training"
    if result.exists():
        status = _field(result, read_json(result), "status", str)
        if status not in STATUSES:
            raise ResultError(f"{result} is damaged: status is {status!r}: expected {STATUSES}")
    try:
        rows = read_metrics(metrics) if metrics.exists() else []
        changed = max(p.stat().st_mtime for p in (metrics, result, folder) if p.exists())
    except OSError as error:  # removed in the meantime
        raise ResultError(f"{folder} cannot be read: {error.strerror or error}") from error
    name = plain(f"{' '.join(texts)} {seqlen} seed {seed}", _WIDEST)
    return changed, Watched(name, rows, budget, status)


def _field(path: Path, data: Any, name: str, kind: type) -> Any:
    value = data.get(name) if isinstance(data, dict) else None
    if type(value) is not kind:
        raise ResultError(f"{path} is damaged: {name} is {value!r:.60}: expected {kind.__name__}")
    return value


def read_metrics(path: Path) -> list[Logged]:
    """Return the rows of a run's metrics.csv.

    Raises:
        ResultError: it is not there or damaged.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ResultError(f"{path} is damaged: expected a file")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            return [_logged(row) for row in reader]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        text = " ".join(str(error).split())[:100]
        raise ResultError(f"{path} is damaged: {type(error).__name__}: {text}") from error


def _logged(row: Mapping[str, str]) -> Logged:
    validated, dense = row["validation_accuracy"], row.get("validation_dense_accuracy")
    return Logged(
        _count(row["step"]), _count(row["tokens"]), float(row["loss"]),
        _share(row["train_accuracy"]), _share(validated) if validated else None,
        _share(dense) if dense else None,
        row.get("branch") not in (None, "", "0"),  # absent until protocol 3
    )  # fmt: skip


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise ValueError(f"count is {text:.40}: expected 0 to {2**63 - 1}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"accuracy is {text}: expected 0 to 1")
    return value


def picture(runs: Sequence[Watched], width: int = 24) -> str:
    """Return a table of `runs` with a curve of the training accuracy, `width` characters wide."""
    lines: list[Sequence[str]] = [_COLUMNS, *(_line(run, width) for run in runs)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _line(run: Watched, width: int) -> tuple[str, ...]:
    if not run.rows:
        return (run.name, *("-",) * 5, run.status, "")
    last = run.rows[-1]
    validated = [r.validation_accuracy for r in run.rows if r.validation_accuracy is not None]
    return (
        run.name,
        str(last.step),
        f"{last.tokens / run.budget_tokens:.0%}",
        f"{last.loss:.3f}" if abs(last.loss) < 1e6 or math.isnan(last.loss) else f"{last.loss:.3g}",
        f"{last.train_accuracy:.1%}",
        f"{validated[-1]:.1%}" if validated else "-",
        run.status,
        curve([row.train_accuracy for row in run.rows], width),
    )


def curve(values: Sequence[float], width: int) -> str:
    """Return values from 0 to 1 as at most `width` block characters, each a mean."""
    n = min(width, len(values))
    groups = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(group) / len(group) for group in groups]
    return "".join(_BLOCKS[min(7, max(0, int(8 * mean)))] for mean in means)
