"""A scorecard, made up."""

from __future__ import annotations

from typing import Any

from made_results import made_result, seeds_of

from mechbench.record.outcome import CellOutcome
from mechbench.report.rows import Row, rows_of
from mechbench.scorecard.card import Card, make_card


def lost(operator: str, status: str, **settings: Any) -> list[Row]:
    """Return a seed of parity that ended so."""
    data = made_result(operator=operator, task="parity", status=status, task_options={}, **settings)
    if status == "diverged":
        data |= {"outcome": CellOutcome("diverged", 5).to_dict()}
    return rows_of(data)


def made_card() -> Card:
    """Return two own operators at three tasks beside two known ones, and an unsound one."""
    far = {"accuracies": {64: 0.99, 256: 0.95, 1024: 0.5}}
    mine = {"plugins": {"mine.py": "0123456789abcdef"}}
    own = [
        *seeds_of("mine", "recall", (300, 400, 500), **far, **mine),
        *seeds_of("mine", "induction", (-900, -900, 700), **mine),
        *seeds_of("other", "recall", (50, 60, 70), **far),
        *seeds_of("mine", "parity", (10, 10, 10), **mine),
        *lost("mine", "error", seed=3, **mine),
        *lost("other", "diverged"),
    ]
    known = [
        *seeds_of("hyena", "recall", (200, 200, 200), **far),
        *seeds_of("h3", "recall", (-1000, -1000, 900), **far),
        *seeds_of("hyena", "induction", (500, 500, 500)),
        *seeds_of("h3", "induction", (800, 2000, -3000)),
        *seeds_of("mine", "recall", (1, 1, 1), **far),
        *seeds_of("hyena", "copy", (1, 1, 1)),
    ]
    return make_card(own, known, {"ahead": "causal, by value: position 3 sees 4"})
