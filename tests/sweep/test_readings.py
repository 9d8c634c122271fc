from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mechbench.plan.suite import Cell
from mechbench.record.config import Config
from mechbench.report.tuning import Reading
from mechbench.sweep.readings import VALIDATIONS, counts, read_at, up_to, with_validations

HEAD = (
    "step,tokens,seqlen,loss,train_accuracy,validation_accuracy,validation_dense_accuracy,"
    "tokens_per_s,train_s,branch\n"
)


def data(budget: int = 1000, status: str = "ok", **changes: Any) -> dict[str, Any]:
    config = Config("hyena", "recall", budget_tokens=budget, n_validation=64).to_dict()
    found = {"status": status, "config": config, "train_tokens": budget, "solved": False}
    return {**found, "validation_accuracy": 0.75, **changes}


def test_rows_are_read_beside_a_result_and_damaged_ones_are_none(tmp_path: Path) -> None:
    assert with_validations(data(), tmp_path)[VALIDATIONS] == []
    path = tmp_path / "metrics.csv"
    path.write_text(HEAD + "5,400,16,1,0.5,,,1,1,0\n9,900,64,1,0.5,0.25,0.5,1,1,0\n")
    assert with_validations(data(), tmp_path) == {**data(), VALIDATIONS: [(900, 0.25)]}
    path.write_text("damaged")
    assert with_validations(data(), tmp_path)[VALIDATIONS] == []


ROWS = [(100, 0.1), (500, 0.5), (900, 0.9)]


@pytest.mark.parametrize(
    ("budget", "accuracy"), [(50, None), (499, 0.1), (500, 0.5), (899, 0.5), (1000, 0.9)]
)
def test_a_cell_is_what_its_last_row_says_within_the_budget(
    budget: int, accuracy: float | None
) -> None:
    """However far it has gone: the same whether it is read at once or later."""
    for stored in (1000, 2000):
        found = read_at(data(stored, validations=ROWS), budget)
        assert found == Reading(budget, False, accuracy, 64)
    assert read_at(data(1000, validations=ROWS), 1001) is None
    assert read_at(None, 1) is None


def test_the_last_budget_is_read_at_its_end() -> None:
    assert read_at(data(validations=ROWS), 1000, at_end=True) == Reading(1000, False, 0.75, 64)
    beyond = data(2000, validations=ROWS)
    assert read_at(beyond, 1000, at_end=True) == Reading(1000, False, 0.9, 64)


@pytest.mark.parametrize("changes", [{"solved": True}, {"status": "diverged"}])
def test_what_ended_later_was_open_before(changes: dict[str, Any]) -> None:
    stored = data(1000, **{"train_tokens": 600, "validations": ROWS, **changes})
    for at_end in (False, True):
        assert read_at(stored, 599, at_end=at_end) == Reading(599, False, 0.5, 64)
        found = read_at(stored, 600, at_end=at_end)
        assert found is not None
        assert found.over
        assert found.solved == bool(changes.get("solved"))
        assert read_at(stored, 10**9, at_end=at_end) is not None


def test_what_failed_failed_at_every_budget() -> None:
    for status in ("error", "out-of-memory"):
        assert read_at(data(10, status), 1000) == Reading(1000, False, 0.0, 64, over=True)


def test_a_result_counts_that_answers_for_the_budget_or_failed() -> None:
    config = Config.from_dict(data()["config"])
    cell = Cell(config, config.cell_id, "hyena", {"seed": 0})
    assert not counts(cell, {})
    assert counts(cell, {cell.cell_id: data()})
    further = up_to(cell, 2000)
    assert (further.config.budget_tokens, further.call["budget_tokens"]) == (2000, 2000)
    assert further.cell_id == cell.cell_id
    assert up_to(cell, 1000) is cell
    assert not counts(further, {cell.cell_id: data()})
    assert counts(further, {cell.cell_id: data(solved=True)})
    assert counts(further, {cell.cell_id: data(status="error")})
