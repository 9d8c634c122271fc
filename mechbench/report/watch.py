"""Live curves of runs as text: what `mechbench watch` shows. No torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechbench.errors import ResultError

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS = ("run", "step", "budget", "loss", "train", "validation", "status", "training accuracy")


@dataclass(frozen=True)
class Watched:
    """One run as its files stand: rows of metrics so far, status once it has ended."""

    name: str
    rows: list[dict[str, str]]
    budget_tokens: int
    status: str


def read_runs(root: Path) -> list[Watched]:
    """Return the runs below `root`, the last changed first; files being written are left out.

    Raises:
        ResultError: `root` does not exist, or holds no run.
    """
    if not root.is_dir():
        raise ResultError(f"{root} does not exist: expected a folder of runs")
    found = [run for path in root.rglob("config.json") if (run := _read(path.parent))]
    if not found:
        raise ResultError(f"no run below {root}")
    return [run for _, run in sorted(found, key=lambda item: (-item[0], item[1].name))]


def _read(folder: Path) -> tuple[float, Watched] | None:
    metrics, result = folder / "metrics.csv", folder / "result.json"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
        status = "training"
        if result.exists():
            status = json.loads(result.read_text(encoding="utf-8"))["status"]
        name = f"{config['operator']} {config['task']} {config['seqlen']} seed {config['seed']}"
        changed = max(p.stat().st_mtime for p in (metrics, result, folder) if p.exists())
        rows = list(csv.DictReader(text.splitlines()))
        return changed, Watched(name, rows, config["budget_tokens"], status)
    except (OSError, ValueError, KeyError):
        return None


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
    last: dict[str, Any] = run.rows[-1]
    validated = [r["validation_accuracy"] for r in run.rows if r.get("validation_accuracy")]
    return (
        run.name,
        last["step"],
        f"{int(last['tokens']) / run.budget_tokens:.0%}",
        f"{float(last['loss']):.3f}",
        f"{float(last['train_accuracy']):.1%}",
        f"{float(validated[-1]):.1%}" if validated else "-",
        run.status,
        curve([float(row["train_accuracy"]) for row in run.rows], width),
    )


def curve(values: Sequence[float], width: int) -> str:
    """Return values from 0 to 1 as at most `width` block characters, each a mean."""
    n = min(width, len(values))
    groups = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(group) / len(group) for group in groups]
    return "".join(_BLOCKS[min(7, max(0, int(8 * mean)))] for mean in means)
