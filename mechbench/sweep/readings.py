"""A stored cell as it stood at a budget, however far it has gone since. No torch.

A run is a part of every longer one, so that stands in its rows of metrics. The validation that is
made where a budget ends stands in none, and is in the result until the run is carried on; only the
last budget of a search, beyond which nobody goes, is read by it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechbench.errors import ResultError
from mechbench.plan.suite import Cell
from mechbench.record.results import RETRIED, answers, is_decided
from mechbench.report.tuning import Reading, reading
from mechbench.report.watch import read_metrics

VALIDATIONS = "validations"  # [(tokens, accuracy), ..], beside what a result stores


def with_validations(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a result with the validations of the rows of metrics that lie beside it."""
    try:
        rows = read_metrics(folder / "metrics.csv")
    except (ResultError, OSError):
        rows = []
    found = [(r.tokens, r.validation_accuracy) for r in rows if r.validation_accuracy is not None]
    return {**data, VALIDATIONS: found}


def read_at(
    data: Mapping[str, Any] | None, budget_tokens: int, *, at_end: bool = False
) -> Reading | None:
    """Return a cell as it stood at a budget; None if it did not come so far.

    Args:
        data: its result with its validations, None if there is none.
        budget_tokens: the budget.
        at_end: read what ended with just this budget by the validation at its end.
    """
    if data is None:
        return None
    if data["status"] in RETRIED:
        return reading(data, budget_tokens)
    if not answers(data, budget_tokens):
        return None
    if is_decided(data) and data["train_tokens"] <= budget_tokens:
        return reading(data, budget_tokens)
    found = reading({**data, "status": "ok", "solved": False}, budget_tokens)
    if at_end and data["config"]["budget_tokens"] == budget_tokens and not is_decided(data):
        return dataclasses.replace(found, over=False)
    seen = [accuracy for tokens, accuracy in data.get(VALIDATIONS, ()) if tokens <= budget_tokens]
    return dataclasses.replace(found, accuracy=seen[-1] if seen else None, over=False)


def counts(cell: Cell, results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a cell has a result that counts: a failure, or one at the cell's budget."""
    data = results.get(cell.cell_id)
    if data is None:
        return False
    return data["status"] in RETRIED or answers(data, cell.config.budget_tokens)


def up_to(cell: Cell, budget_tokens: int) -> Cell:
    """Return a cell as it is to run to a budget."""
    if budget_tokens == cell.config.budget_tokens:
        return cell
    config = dataclasses.replace(cell.config, budget_tokens=budget_tokens)
    call = {**cell.call, "budget_tokens": budget_tokens}
    return dataclasses.replace(cell, config=config, call=call)
