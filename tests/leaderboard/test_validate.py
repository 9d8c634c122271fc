from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mechbench.leaderboard.validate import faults

Make = Callable[..., dict[str, Any]]


def test_honest_results_have_no_fault(make: Make) -> None:
    assert faults(make()) == []
    assert faults(make({64: 0.98, 128: 0.1})) == []
    assert faults(make({}, "out-of-memory")) == []
    assert faults(make({64: 0.0}, "diverged")) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema_version": 2}, "schema version is 2"),
        ({"cell_id": "0" * 16}, "the configuration's is"),
        ({"status": "fine"}, "status is 'fine'"),
        ({"status": "error"}, "without a reason"),
        ({"config": {}}, "does not fit this version"),
        ({"evaluations": []}, "expected [64]"),
        ({"evaluations": None}, "damaged: TypeError"),
        ({"train_tokens": 20_000}, "the budget is 10000"),
        ({"parameters": None}, "parameters is None"),
        ({"validation_accuracy": float("nan")}, "validation_accuracy is nan"),
        ({"chance": 1.5}, "chance is 1.5"),
        ({"provenance": {}}, "provenance lacks 'torch'"),
    ],
)
def test_fault_is_found(make: Make, change: dict[str, Any], text: str) -> None:
    assert any(text in fault for fault in faults({**make(), **change}))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"accuracy": 0.95}, "at 64: accuracy is 0.95: 900 of 1000 give 0.9"),
        ({"ci_high": 0.99}, "ci_high is 0.99"),
        ({"correct": 1001}, "1001 of 1000 right"),
        ({"n": 900}, "expected at least 1000 scored"),
        ({"seqlen": 32}, "evaluations at [32]"),
    ],
)
def test_figures_must_follow_from_the_counts(make: Make, change: dict[str, Any], text: str) -> None:
    data = make()
    data["evaluations"][0] |= change
    assert any(text in fault for fault in faults(data))


def test_better_than_the_oracle_or_worse_than_chance_is_refused(make: Make) -> None:
    """The oracle of the made-up task reaches 0.98, chance is 0.1."""
    assert faults(make({64: 0.999})) == ["at 64: accuracy 0.9990 is above the oracle's 0.9800"]
    assert faults(make({64: 0.985})) == []  # within its interval
    assert faults(make({64: 0.05})) == ["at 64: accuracy 0.0500 is below chance, 0.1000"]
    assert faults(make({64: 0.095})) == []


def test_a_seed_that_is_none_is_a_fault(make: Make) -> None:
    data = make()
    data["config"]["seed"] = -1
    (fault,) = faults(data)
    assert fault.endswith("seed is -1: expected 0 or more")


def test_date_is_looked_at(make: Make) -> None:
    data = make()
    data["provenance"]["date"] = "yesterday"
    assert faults(data) == [
        "provenance has the date 'yesterday': expected UTC, ISO 8601",
    ]
