"""Stored results as a data frame, of runs and of boards alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechbench.record.config import tunes
from mechbench.record.outcome import outcome_of
from mechbench.record.results import NOT_RUN, read_result
from mechbench.report.results_csv import read_results, stored_files

if TYPE_CHECKING:
    import pandas as pd


def load_results(*paths: Path | str) -> pd.DataFrame:
    """Return one row per result and evaluation length, sorted, of every result below `paths`.

    Results are those of runs (result.json) and of boards (the results.csv of a leaderboard), of
    which what was planned and not run is left out.

    Columns: the configuration's fields, the evaluation's fields (`eval_seqlen` for its length) and
    the result's scalars, `outcome`, `outcome_tokens`, `slope` and `trend` of its outcome, and
    `tuning`, whether it only chooses a learning rate. A result without evaluations keeps a row with
    status and reason.

    Raises:
        ResultError: nothing found, or a result is corrupt.
    """
    import pandas as pd

    files, tables = stored_files(*paths)
    found = [(path, read_result(path).data) for path in files]
    found += [(path, data) for path in tables for data in read_results(path)]
    rows = [row for path, data in found if data["status"] != NOT_RUN for row in _rows(path, data)]
    frame = pd.DataFrame(rows)
    return frame.sort_values(
        ["task", "operator", "seqlen", "eval_seqlen", "seed", "cell_id"], ignore_index=True
    )


def _rows(path: Path, data: dict[str, Any]) -> list[dict[str, Any]]:
    scalars = {k: v for k, v in data.items() if not isinstance(v, dict | list)}
    extra = {f"seconds_{k}": v for k, v in (data.get("seconds") or {}).items()}
    extra |= {k: v for k, v in data["provenance"].items() if k in ("device", "torch", "date")}
    if (told := outcome_of(data)) is not None:
        extra |= {"outcome": told.kind, "outcome_tokens": told.tokens}
        extra |= {"slope": told.slope, "trend": told.trend}
    extra["tuning"] = tunes(data["config"]["seed"], data["config"]["protocol"])
    rows = []
    for evaluation in data["evaluations"] or [{}]:
        evaluated = {**evaluation, "eval_seqlen": evaluation.get("seqlen")}
        known = {**evaluated, **extra, **scalars}
        # Again: a later version may have a field of the same name.
        rows.append({**known, **evaluated, **extra, **data["config"], "path": str(path)})
    return rows
