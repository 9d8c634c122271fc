from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import mechbench
from mechbench.errors import ConfigError
from mechbench.record.config import ADDED, Config, canonical_json
from mechbench.record.results import NOT_RUN, STATUSES, read_result
from mechbench.record.schema import Status, result_faults, stored_config

BOARDS = Path(mechbench.__file__).parent.parent / "leaderboards"
Change = Callable[[dict[str, Any]], object]


def sound() -> dict[str, Any]:
    config = Config("hyena", "recall", budget_tokens=10, eval_seqlens=(64, 128))
    evaluations = [
        {
            "seqlen": seqlen, "n": 100, "correct": 50, "accuracy": 0.5, "ci_low": 0.4,
            "ci_high": 0.6, "dense_n": 300, "dense_accuracy": 0.4, "shortcuts": {"last": 0.1},
            "required_context": {"16": 0.5},
        }
        for seqlen in (64, 128)
    ]  # fmt: skip
    return {
        "schema_version": 1, "cell_id": config.cell_id, "status": "ok", "reason": None,
        "config": config.to_dict(), "chance": 0.1, "evaluations": evaluations,
        "seconds": {"train": 1.5, "total": 2}, "provenance": {"device": "CPU", "torch": "2"},
    }  # fmt: skip


def test_a_sound_result_has_no_fault_and_unknown_fields_are_left_alone() -> None:
    data = sound()
    data["later"] = data["evaluations"][0]["later"] = data["provenance"]["later"] = {"x": [1]}
    before = json.dumps(data)
    assert result_faults(data) == []
    assert json.dumps(data) == before


def put(value: Any, *path: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (put("x", "chance"), "chance is 'x': expected a valid number"),
        (put(1.5, "chance"), "chance is 1.5: expected less than or equal to 1"),
        (put(float("nan"), "chance"), "chance is nan: expected a finite number"),
        (put("fine", "status"), "status is 'fine': expected 'ok', 'diverged'"),
        (put("not-run", "status"), "status is 'not-run': expected that of a run"),
        (put(1, "solved"), "solved is 1: expected a valid boolean"),
        (put("../x", "cell_id"), "cell_id is '../x': expected pattern"),
        (put(-1.0, "seconds", "train"), "seconds.train is -1.0: expected greater than or equal"),
        (put(-1, "train_tokens"), "train_tokens is -1: expected greater than or equal to 0"),
        (put(2**70, "steps"), f"steps is {2**70}: expected less than or equal to"),
        (put("y" * 20_000, "provenance", "device"), "expected at most 10000 characters"),
        (put(None, "provenance"), "provenance is None: expected an object"),
        (put({}, "evaluations"), "evaluations is {}: expected a valid list"),
        (put(None, "evaluations", 0), "evaluations[0] is None: expected an object"),
        (put(True, "evaluations", 0, "n"), "evaluations[0].n is True: expected a valid integer"),
        (put(-1, "evaluations", 1, "non_finite"), "evaluations[1].non_finite is -1: expected"),
        (put({"a\nb": 2}, "evaluations", 0, "shortcuts"), "shortcuts.a\\nb is 2: expected less"),
        (put({"x": 1}, "evaluations", 0, "required_context"), "is 'x': expected pattern"),
        (put(101, "evaluations", 0, "correct"), "evaluations[0].correct is 101: expected at most"),
        (put(0.6, "evaluations", 0, "accuracy"), "accuracy is 0.6: 50 of 100 give 0.5"),
        (put(64, "evaluations", 1, "seqlen"), "expected each length once"),
        (lambda data: data["evaluations"].pop(), "evaluations lack seqlen 128: expected [64, 128]"),
        (put([], "evaluations"), "evaluations lack seqlen 64"),
        (put(1, "config", "seed"), "the configuration's is"),
        (put(1.5, "config", "seed"), "config.seed is 1.5: expected a valid integer"),
        (put(0, "config", "d_model"), "d_model is 0: expected at least 1"),
        (put([[8, 2, 1]], "config", "curriculum"), "config.curriculum[0] is"),
        (lambda data: data["config"].pop("lr"), "config.lr is missing"),
        (lambda data: data.pop("config"), "config is missing"),
    ],
)
def test_a_fault_names_the_field_and_what_was_expected(change: Change, fault: str) -> None:
    data = sound()
    change(data)
    found = result_faults(data)
    assert len(found) == 1
    assert fault in found[0]
    assert found[0].isprintable()
    assert len(found[0]) < 300


@pytest.mark.parametrize("data", [None, 3, [], "x", {}])
def test_what_is_no_result_at_all_has_faults(data: Any) -> None:
    assert result_faults(data)


def test_a_failed_run_need_not_be_scored_everywhere() -> None:
    data = sound()
    data["evaluations"].pop()
    assert result_faults(data | {"status": "out-of-memory", "reason": "memory"}) == []


def test_a_planned_cell_stands_in_leaderboards_only() -> None:
    data = sound() | {"status": "not-run", "evaluations": []}
    assert result_faults(data, planned=True) == []
    assert result_faults(data)


def test_the_schema_knows_the_statuses_that_results_have() -> None:
    assert set(get_args(Status)) == {*STATUSES, NOT_RUN}


def test_configurations_from_before_a_field_was_added_are_read() -> None:
    config = Config(
        "hyena", "recall", budget_tokens=10, eval_seqlens=(64,), protocol=2, schedule="cosine"
    )
    data = {k: v for k, v in config.to_dict().items() if k not in ADDED}
    assert stored_config(data) == config
    with pytest.raises(ConfigError, match="it is None: expected an object"):
        stored_config(None)
    with pytest.raises(ConfigError, match=r"eval_seqlens is \[\]: expected at least one length"):
        stored_config(data | {"eval_seqlens": []})


def test_a_whole_number_may_have_been_given_as_2e4() -> None:
    """Its id is of the configuration as it was stored then."""
    data = sound()
    data["config"] |= {"budget_tokens": 2e4, "protocol": 2, "schedule": "cosine"}
    hashed = {k: v for k, v in data["config"].items() if k not in ADDED}
    hashed["plugins"] = []
    data["cell_id"] = hashlib.sha256(canonical_json(hashed).encode()).hexdigest()[:16]
    assert result_faults(data) == []
    data["config"]["budget_tokens"] = 2e4 + 0.5
    assert "budget_tokens is 20000.5: expected a valid integer" in result_faults(data)[0]


def test_every_committed_result_is_sound() -> None:
    """Those of protocol 1 too: their ids follow the rule of today, absent fields left out."""
    paths = sorted(BOARDS.glob("*/results/**/result.json"))
    assert len(paths) >= 36
    assert {path.parent.name for path in paths} == {read_result(p).cell_id for p in paths}


def test_every_committed_row_is_sound() -> None:
    from mechbench.report.results_csv import read_rows

    tables = sorted(BOARDS.glob("*/results.csv"))
    assert len(tables) >= 5
    for table in tables:
        for data in {row.data["cell_id"]: row.data for row in read_rows(table)}.values():
            assert result_faults(data, planned=True) == [], table


def test_the_results_module_alone_loads_no_pydantic() -> None:
    code = (
        "import sys, mechbench.record.results, mechbench.cli; sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
