"""Copies: one measurement submitted as several results. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from mechbench.record.config import canonical_json


def copies(
    results: Iterable[dict[str, Any]], stored: Sequence[dict[str, Any]]
) -> dict[str, list[str]]:
    """Return {cell id: faults} of the results that repeat what another cell measured.

    Two trainings may end with the same counts, but not in the same fractions of a second. Which
    of several is the genuine one cannot be told, unless it is stored already.

    Args:
        results: those handed in.
        stored: those in the leaderboard.
    """
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    handed = {data["cell_id"]: data for data in results}
    for data in [*stored, *handed.values()]:
        if measured := _measured(data):
            cells[measured][data["cell_id"]] = f"seed {data['config']['seed']}"
    known = {data["cell_id"] for data in stored}
    found = {}
    for same in cells.values():
        for cell_id in same.keys() & handed.keys() - known if len(same) > 1 else ():
            others = sorted(f"{cell} ({seed})" for cell, seed in same.items() if cell != cell_id)
            found[cell_id] = [
                f"counts, tokens and seconds are those of cell {', '.join(others[:3])}: a copy"
            ]
    return found


def _measured(data: dict[str, Any]) -> str | None:
    """Return all that was measured, as one text; None where nothing was."""
    if not data["evaluations"]:
        return None
    scores = sorted([e["correct"], e["n"], e["dense_accuracy"]] for e in data["evaluations"])
    names = ("steps", "train_tokens", "validation_accuracy", "seconds")
    return canonical_json([scores, *(data.get(name) for name in names)])
