"""What became of a cell: solved after how many tokens, or given up, rising or flat. No torch.

Solved: validation accuracy at the mark twice in a row, after the tokens of the second. Censored:
trained on so many tokens and not solved. A cell that diverged, or failed with an error or for want
of memory, is neither.

Only validations on steps that know no budget can solve a cell or make its slope: a longer run has
the same. A schedule that decays in branches, which it undoes, evaluates a branch by design: two
validations of one branch may solve the cell, but not one of a branch and one beside it. The slope
is that of the trunk, as branches stand above it all along.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechbench.record.trend import RULE, Rule, Slope, late_slope, trend

SOLVED, CENSORED, DIVERGED, FAILED = KINDS = ("solved", "censored", "diverged", "failed")
MARK = 0.995  # validation accuracy, twice in a row
IN_A_ROW = 2
UNCLEAR = "unclear"  # how a trend of None is told


@dataclass(frozen=True)
class CellOutcome:
    """What became of one cell; None where it is not known.

    Attributes:
        kind: one of KINDS.
        tokens: to solve it if it is solved, else those it was trained on.
        mark: validation accuracy that counts as solved.
        accuracy: last validated.
        positions: scored in a validation.
        validations: that there were.
        slope: accuracy gained per doubling of tokens, over the last half of them; of a censored
            cell only, like the next four.
        slope_low: of its 95 percent interval, like `slope_high`.
        slope_high: see `slope_low`.
        trend: "rising" or "flat", by `mechbench.record.trend.RULE`.
        dense_slope: accuracy gained per doubling over every predictable position.
    """

    kind: str
    tokens: int
    mark: float = MARK
    accuracy: float | None = None
    positions: int | None = None
    validations: int = 0
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    trend: str | None = None
    dense_slope: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dataclasses.asdict(self)


def cell_outcome(
    rows: Sequence[Mapping[str, Any]],
    positions: int,
    mark: float = MARK,
    rule: Rule = RULE,
    end: tuple[int, float | None] | None = None,
) -> CellOutcome:
    """Return the outcome of a cell that did not fail, from its rows of metrics.

    Args:
        rows: with tokens and validation_accuracy, which may be None; in order. What a branch that
            is undone comes to has a true `branch`, and what was measured over every predictable
            position stands in `validation_dense_accuracy`.
        positions: scored in a validation.
        mark: validation accuracy that counts as solved.
        rule: what makes a cell flat.
        end: tokens trained on and accuracy then, where a budget ended between two rows; by default
            those of the last row.
    """
    validated = [row for row in rows if row["validation_accuracy"] is not None]
    at = _solving(validated, mark)
    if at is not None:
        row = validated[at]
        accuracy = float(row["validation_accuracy"])
        return CellOutcome(SOLVED, int(row["tokens"]), mark, accuracy, positions, at + 1)
    last = float(validated[-1]["validation_accuracy"]) if validated else None
    spent, told = end or (int(rows[-1]["tokens"]) if rows else 0, last)
    known = CellOutcome(CENSORED, spent, mark, told, positions, len(validated))
    trunk = [row for row in validated if not row.get("branch")]
    slope = _late_slope(trunk, "validation_accuracy", rule)
    if slope is None or told is None:
        return known
    dense = _late_slope(trunk, "validation_dense_accuracy", rule)
    word = trend(slope, int(trunk[-1]["tokens"]), told, positions, mark, rule, dense)
    return dataclasses.replace(
        known,
        slope=slope.slope,
        slope_low=slope.low,
        slope_high=slope.high,
        trend=word,
        dense_slope=dense.slope if dense else None,
    )


def _late_slope(trunk: Sequence[Mapping[str, Any]], name: str, rule: Rule) -> Slope | None:
    known = [row for row in trunk if row.get(name) is not None]
    return late_slope([int(row["tokens"]) for row in known], [row[name] for row in known], rule)


def _solving(validated: Sequence[Mapping[str, Any]], mark: float) -> int | None:
    """Return the index of the validation that solves the task."""
    streak, before = 0, False
    for i, row in enumerate(validated):
        branch = bool(row.get("branch"))
        streak = (streak if branch == before else 0) + 1
        streak, before = streak if row["validation_accuracy"] >= mark else 0, branch
        if streak == IN_A_ROW:
            return i
    return None


def ended(known: CellOutcome | None, status: str, tokens: int) -> CellOutcome:
    """Return the outcome of a cell by the status it ended with.

    Args:
        known: of its rows of metrics; None where it did not come that far.
        status: "ok" or how it failed.
        tokens: trained on.
    """
    if status == "ok" and known is not None:
        return known
    kind = {"ok": CENSORED, "diverged": DIVERGED}.get(status, FAILED)
    return CellOutcome(kind, tokens)


def outcome_of(data: Mapping[str, Any]) -> CellOutcome | None:
    """Return the outcome that a result holds; of one without, what its other fields imply.

    Results from before outcomes were stored stopped as soon as they were solved; whether they
    were rising is not known. None of a cell that was not run.

    Args:
        data: of a result that the schema found sound.
    """
    if stored := data.get("outcome"):
        names = {field.name for field in dataclasses.fields(CellOutcome)}
        return CellOutcome(**{name: stored[name] for name in names & stored.keys()})
    status = data["status"]
    if status == "not-run":
        return None
    tokens = data.get("train_tokens") or 0
    kind = {"ok": SOLVED if data.get("solved") else CENSORED, "diverged": DIVERGED}
    accuracy = data.get("validation_accuracy") if status == "ok" else None
    return CellOutcome(kind.get(status, FAILED), tokens, accuracy=accuracy)


def outcome_faults(data: Mapping[str, Any]) -> list[str]:
    """Return what contradicts the rest of a result in its outcome, whose types are right."""
    stored = data.get("outcome")
    if not stored:
        return []
    outcome = CellOutcome(**{f.name: stored.get(f.name) for f in dataclasses.fields(CellOutcome)})
    found = []
    status, solved = data["status"], bool(data.get("solved"))
    expected = {"ok": SOLVED if solved else CENSORED, "diverged": DIVERGED}.get(status, FAILED)
    if outcome.kind != expected:
        found.append(
            f"outcome.kind is {outcome.kind!r}: expected {expected!r} of status {status!r}, "
            f"solved {str(solved).lower()}"
        )
    spent = data.get("train_tokens")
    if spent is not None and (
        outcome.tokens > spent or (outcome.kind != SOLVED and outcome.tokens != spent)
    ):
        found.append(f"outcome.tokens is {outcome.tokens}: trained on {spent}")
    ends = [outcome.slope_low, outcome.slope, outcome.slope_high]
    given = [end for end in ends if end is not None]
    if len(given) not in (0, 3) or given != sorted(given) or not all(map(math.isfinite, given)):
        found.append(f"outcome.slope is {outcome.slope}: expected it within its interval")
    if outcome.trend is not None and (outcome.kind != CENSORED or not given):
        found.append(f"outcome.trend is {outcome.trend!r}: expected a slope of a censored cell")
    return found
