"""A scorecard, made up."""

from __future__ import annotations

from typing import Any

from made_results import made_result

from mechbench.record.outcome import CellOutcome
from mechbench.report.rows import Row, rows_of
from mechbench.scorecard.card import Card, make_card

Tokens = tuple[int, ...]  # of each seed; negative: given up then


def rows(operator: str, task: str, tokens: Tokens, **settings: Any) -> list[Row]:
    found: list[Row] = []
    for seed, n in enumerate(tokens):
        kind, trend = ("solved", None) if n > 0 else ("censored", "rising")
        options = {"min_distance": 0} if task == "recall" else {}
        made: dict[str, Any] = {"task_options": options, **settings}
        data = made_result(operator=operator, task=task, seed=seed, **made)
        data |= {"outcome": CellOutcome(kind, abs(n), trend=trend).to_dict(), "solved": n > 0}
        found += rows_of(data | {"train_tokens": abs(n)})
    return found


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
        *rows("mine", "recall", (300, 400, 500), **far, **mine),
        *rows("mine", "induction", (-900, -900, 700), **mine),
        *rows("other", "recall", (50, 60, 70), **far),
        *rows("mine", "parity", (10, 10, 10), **mine),
        *lost("mine", "error", seed=3, **mine),
        *lost("other", "diverged"),
    ]
    known = [
        *rows("hyena", "recall", (200, 200, 200), **far),
        *rows("h3", "recall", (-1000, -1000, 900), **far),
        *rows("hyena", "induction", (500, 500, 500)),
        *rows("h3", "induction", (800, 2000, -3000)),
        *rows("mine", "recall", (1, 1, 1), **far),
        *rows("hyena", "copy", (1, 1, 1)),
    ]
    return make_card(own, known, {"ahead": "causal, by value: position 3 sees 4"})
