from __future__ import annotations

from typing import Any

import pytest

from mechbench.record.outcome import CellOutcome, cell_outcome, ended, outcome_faults, outcome_of
from mechbench.record.trend import Rule

CENSORED = CellOutcome("censored", 6000, 0.995, 0.7, 512, 3)


def rows(*accuracies: float | None) -> list[dict[str, Any]]:
    return [
        {"step": 25 * i, "tokens": 1000 * i, "validation_accuracy": accuracy}
        for i, accuracy in enumerate(accuracies, 1)
    ]


def test_solved_at_the_second_validation_in_a_row() -> None:
    found = cell_outcome(rows(None, 0.4, 1.0, 0.9, 0.995, 0.996, 1.0), 512)
    assert found == CellOutcome("solved", 6000, 0.995, 0.996, 512, 5)


def test_what_was_not_validated_stands_between_no_two_validations() -> None:
    assert cell_outcome(rows(0.999, None, 0.999), 512).tokens == 3000


def test_another_mark() -> None:
    assert cell_outcome(rows(0.9, 0.9), 512, 0.9).kind == "solved"
    assert cell_outcome(rows(0.9, 0.9), 512).kind == "censored"


def test_censored_with_too_few_validations_has_no_trend() -> None:
    assert cell_outcome(rows(None, None, None, 0.5, 0.6, 0.7), 512) == CENSORED
    assert cell_outcome([], 512) == CellOutcome("censored", 0, 0.995, None, 512, 0)


def test_censored_flat_and_rising() -> None:
    flat = cell_outcome(rows(*[0.25] * 40), 512, rule=Rule())
    assert (flat.kind, flat.tokens, flat.trend) == ("censored", 40_000, "flat")
    assert cell_outcome(rows(*[0.25] * 40), 512).trend is None  # of 40,000 tokens
    assert (flat.slope_low, flat.slope, flat.slope_high) == (0.0, 0.0, 0.0)
    rising = cell_outcome(rows(*[i / 50 for i in range(40)]), 512, rule=Rule())
    assert rising.trend == "rising"
    assert rising.slope is not None
    # 20 of 50 gained over the last doubling
    assert rising.slope == pytest.approx(0.4, abs=0.03)


def test_censored_is_rising_by_what_all_positions_gain() -> None:
    still = rows(*[0.25] * 40)
    told = [row | {"validation_dense_accuracy": i / 100} for i, row in enumerate(still)]
    found = cell_outcome(told, 512, rule=Rule())
    assert (found.slope, found.trend) == (0.0, "rising")
    assert found.dense_slope == pytest.approx(0.2, abs=0.02)
    assert cell_outcome(rows(*[0.25] * 40), 512, rule=Rule()).dense_slope is None


def test_a_budget_that_ends_between_rows_needs_no_row_of_its_own() -> None:
    found = cell_outcome(rows(*[0.25] * 40), 512, end=(40_900, 0.26))
    assert (found.kind, found.tokens, found.accuracy) == ("censored", 40_900, 0.26)
    assert found.slope == 0.0
    # One good validation in the rows and one at the end of a budget are not two in a row.
    found = cell_outcome(rows(0.4, 0.999), 512, end=(2900, 0.999))
    assert (found.kind, found.tokens) == ("censored", 2900)
    assert cell_outcome([], 512, end=(900, 0.1)).accuracy == 0.1
    solved = cell_outcome(rows(0.999, 0.999), 512, end=(2000, 0.999))
    assert (solved.kind, solved.tokens) == ("solved", 2000)


def test_a_branch_solves_by_itself_and_does_not_bend_the_slope() -> None:
    def marked(*pairs: tuple[float, int]) -> list[dict[str, Any]]:
        table = rows(*(accuracy for accuracy, _ in pairs))
        return [{**row, "branch": branch} for row, (_, branch) in zip(table, pairs, strict=True)]

    good = 0.999
    assert cell_outcome(marked((0.9, 0), (0.9, 1), (good, 1), (good, 1)), 512).tokens == 4000
    for pairs in (
        ((0.9, 0), (0.9, 1), (good, 1), (good, 0)),
        ((good, 0), (good, 1), (0.9, 1)),
        ((good, 1), (good, 0), (0.9, 0), (good, 0)),
    ):
        assert cell_outcome(marked(*pairs), 512).kind == "censored"
    flat = [(0.25, 0)] * 40
    bent = [pair for base in flat for pair in (base, (0.25 + 0.1 * (base[1] == 0), 1))]
    assert cell_outcome(marked(*flat, (0.9, 1), (0.95, 1)), 512, rule=Rule()).trend is not None
    assert cell_outcome(marked(*bent), 512).slope == 0.0


def test_what_fails_after_training_is_no_outcome_of_it() -> None:
    assert ended(CENSORED, "ok", 6000) == CENSORED
    assert ended(CENSORED, "diverged", 6000) == CellOutcome("diverged", 6000)
    for status in ("error", "out-of-memory"):
        assert ended(CENSORED, status, 5000) == CellOutcome("failed", 5000)


@pytest.mark.parametrize(
    ("status", "solved", "kind"),
    [
        ("ok", True, "solved"), ("ok", False, "censored"), ("diverged", False, "diverged"),
        ("error", True, "failed"), ("out-of-memory", False, "failed"),
    ],
)  # fmt: skip
def test_older_results_imply_an_outcome(status: str, solved: bool, kind: str) -> None:
    data = {
        "status": status, "solved": solved, "train_tokens": 6000, "validation_accuracy": 0.7,
    }  # fmt: skip
    accuracy = 0.7 if status == "ok" else None
    assert outcome_of(data) == CellOutcome(kind, 6000, accuracy=accuracy)


def test_what_was_not_run_has_none_and_little_may_be_known() -> None:
    assert outcome_of({"status": "not-run"}) is None
    assert outcome_of({"status": "ok"}) == CellOutcome("censored", 0)


def test_a_stored_outcome_is_read_back_with_what_a_later_version_adds() -> None:
    data = {"status": "ok", "outcome": {**CENSORED.to_dict(), "later": 1}}
    assert outcome_of(data) == CENSORED
    assert outcome_faults({**data, "train_tokens": 6000}) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kind": "solved"}, "outcome.kind is 'solved': expected 'censored' of status 'ok', "),
        ({"tokens": 7000}, "outcome.tokens is 7000: trained on 6000"),
        ({"tokens": 5000}, "outcome.tokens is 5000: trained on 6000"),
        ({"slope": 0.1}, "outcome.slope is 0.1: expected it within its interval"),
        ({"slope": 0.1, "slope_low": 0.2, "slope_high": 0.3}, "outcome.slope is 0.1: "),
        ({"trend": "flat"}, "outcome.trend is 'flat': expected a slope of a censored cell"),
    ],
)
def test_contradictions_are_named(change: dict[str, Any], fault: str) -> None:
    data = {"status": "ok", "solved": False, "train_tokens": 6000}
    (found,) = outcome_faults({**data, "outcome": {**CENSORED.to_dict(), **change}})
    assert found.startswith(fault)


def test_a_solved_cell_may_have_gone_on() -> None:
    data = {"status": "ok", "solved": True, "train_tokens": 9000}
    assert outcome_faults({**data, "outcome": CellOutcome("solved", 6000).to_dict()}) == []
    assert outcome_faults({**data, "outcome": CellOutcome("solved", 9001).to_dict()}) != []
