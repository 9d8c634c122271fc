from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.errors import BusyError
from mechbench.plan.resolve import resolve
from mechbench.record.files import exclusive
from mechbench.record.results import read_result, write_json
from mechbench.report.collect import collect
from mechbench.sweep.failure import store_failure


def test_failure_is_a_result_that_reports_can_read(tmp_path: Path) -> None:
    config, device = resolve("attention", "recall", device="cpu", eval_seqlens=(128,))
    result = store_failure(config, device, tmp_path, "the lights went out")
    assert (result.status, result.stop, result.reason) == ("error", "error", "the lights went out")
    rows, warnings = collect([tmp_path])
    assert warnings == []
    assert [(row.eval_seqlen, row.status, row.accuracy) for row in rows] == [
        (64, "error", None),
        (128, "error", None),
    ]


def test_cell_at_work_is_left_alone(tmp_path: Path) -> None:
    config, device = resolve("attention", "recall", device="cpu")
    folder = tmp_path / config.cell_id
    folder.mkdir()
    with exclusive(folder), pytest.raises(BusyError, match="in use by process"):
        store_failure(config, device, tmp_path, "x")
    assert not (folder / "result.json").exists()


def test_a_failure_takes_the_place_of_no_result_of_a_smaller_budget(tmp_path: Path) -> None:
    config, device = resolve("attention", "recall", device="cpu")
    first = store_failure(config, device, tmp_path, "first")
    good = {**first.data, "status": "diverged", "stop": "diverged"}
    write_json(first.path, good)
    failed = store_failure(config, device, tmp_path, "the lights went out")
    assert (failed.status, failed.reason) == ("error", "the lights went out")
    assert read_result(first.path).data == good
    write_json(first.path, first.data)
    assert store_failure(config, device, tmp_path, "second").data == read_result(first.path).data
