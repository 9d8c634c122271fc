from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from mechbench.catalogue.plugins import keep_plugins, load_plugin
from mechbench.catalogue.registry import register_operator
from mechbench.errors import OperatorError
from mechbench.plan.resolve import resolve
from mechbench.record.files import exclusive
from mechbench.record.results import read_result
from mechbench.sweep.process import Started
from mechbench.sweep.worker import RemoteConsole, ending, run_order

pytestmark = pytest.mark.usefixtures("clean_registry")
CALL: dict[str, Any] = {
    "operator": "attention", "task": "recall", "seqlen": 16, "vocab_size": 8, "d_model": 16,
    "n_layers": 1, "batch_size": 8, "budget_tokens": 10 * 8 * 18, "n_test": 16,
    "n_validation": 16, "validate_every": 5,
}  # fmt: skip


def order(out: Path, **changes: Any) -> dict[str, Any]:
    call = {**CALL, **changes}
    cell_id = resolve(**call, device="cpu")[0].cell_id
    return {
        "call": call, "cell_id": cell_id, "device": "cpu", "out": str(out), "plugins": [],
        "checkpoint_s": 30.0, "log": "none",
    }  # fmt: skip


def run(given: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []
    return run_order(given, RemoteConsole(sent.append)), sent


def test_cell_is_run_stored_and_reported(tmp_path: Path) -> None:
    given = order(tmp_path)
    report, sent = run(given)
    assert report["event"] == "done"
    stored = read_result(tmp_path / given["cell_id"] / "result.json")
    assert report["result"] == stored.data
    assert [s["event"] for s in sent if s["event"] != "tokens"] == ["bar", "row", "row"]
    assert run(given)[0] == report  # read, not run again


PLUGIN = """import mechbench
from torch import nn

@mechbench.register_operator("of-a-plugin")
class Mine(nn.Linear):
    def __init__(self, d_model: int, max_seqlen: int) -> None:
        super().__init__(d_model, d_model)
"""


def test_plugin_touched_or_edited_since_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has it keeps it; one that starts later says what has changed."""
    monkeypatch.setattr("mechbench.catalogue.plugins._keeping", False)
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    given = order(tmp_path / "runs", operator="of-a-plugin")
    plugins = resolve(**given["call"], device="cpu")[0].plugins
    given |= {"plugins": [str(path)], "code": plugins}
    path.write_text(PLUGIN)
    assert run(given)[0]["event"] == "done"
    path.write_text(PLUGIN + "# edited\n")
    report = run(given)[0]
    assert report["event"] != "done"
    assert report["reason"].startswith(
        f"{path} changed since the sweep was planned: start it again"
    )
    path.write_text(PLUGIN)
    load_plugin(path)
    keep_plugins()
    path.write_text(PLUGIN + "# edited\n")
    assert run(given | {"out": str(tmp_path / "kept")})[0]["event"] == "done"


def operator(name: str, error: Exception) -> None:
    @register_operator(name)
    class Raises(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__()

        def forward(self, u: Tensor) -> Tensor:
            if self.training:
                raise error
            return u


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("odd"), "error"), (MemoryError("no room"), "out-of-memory")],
)
def test_what_an_operator_raises_is_recorded(tmp_path: Path, error: Exception, status: str) -> None:
    operator("raises", error)
    report, _ = run(order(tmp_path, operator="raises"))
    assert (report["event"], report["result"]["status"]) == ("done", status)
    assert str(error) in report["result"]["reason"]


def test_option_that_does_not_fit_is_recorded(tmp_path: Path) -> None:
    # Of small models a suite says it before anything runs.
    report, _ = run(order(tmp_path, d_model=1026, operator_options={"n_heads": 4}))
    assert report["result"]["status"] == "error"
    assert "d_model 1026 over 4 heads" in report["result"]["reason"]


def test_busy_cell_is_told_apart(tmp_path: Path) -> None:
    given = order(tmp_path)
    folder = tmp_path / given["cell_id"]
    folder.mkdir()
    with exclusive(folder):
        assert run(given)[0]["event"] == "busy"
    assert list(folder.glob("result.json")) == []


def test_cell_other_than_planned_is_refused(tmp_path: Path) -> None:
    given = order(tmp_path) | {"cell_id": "0" * 16}
    report, _ = run(given)
    assert report["event"] == "refused"
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_fails_on_the_way_on_is_reported_and_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(order(tmp_path))[0]["result"]

    def fail(*args: object, **more: object) -> None:
        raise OperatorError("operator 'attention' is worn out")

    monkeypatch.setattr("mechbench.training.train_cell.train", fail)
    given = order(tmp_path, budget_tokens=20 * 8 * 18)
    report, _ = run(given)
    assert (report["event"], report["result"]["status"]) == ("done", "error")
    assert "worn out" in report["result"]["reason"]
    assert read_result(tmp_path / given["cell_id"] / "result.json").data == first


def test_a_worker_ends_after_a_cell_that_broke_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def broken(device: str) -> bool:
        asked.append(device)
        return True

    monkeypatch.setattr("mechbench.training.lane.broken", broken)
    for event, status in (("refused", ""), ("done", "ok")):
        report: dict[str, Any] = {"event": event, "result": {"status": status}}
        assert not ending(report, "cuda:0")
        assert "ends" not in report
    assert asked == []  # which takes a GPU its time
    report = {"event": "done", "result": {"status": "error"}}
    assert ending(report, "cuda:0")
    assert (report["ends"], asked) == (True, ["cuda:0"])


def test_a_worker_that_nobody_hears_ends_and_its_cell_has_not_failed(tmp_path: Path) -> None:
    worker, given = Started(threads=1), order(tmp_path)
    reports = worker.reports()
    assert json.loads(next(reports)) == {"event": "ready"}
    worker._process.stdout.close()  # the sweep is gone; its orders have not ended yet
    worker.orders.write(json.dumps(given) + "\n")
    worker.orders.flush()
    assert worker.ended() == 0
    worker.orders.close()
    assert (tmp_path / given["cell_id"]).exists()
    assert not (tmp_path / given["cell_id"] / "result.json").exists()
