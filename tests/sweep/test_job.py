from __future__ import annotations

import json
from pathlib import Path

from mechbench.plan.suite import Cell
from mechbench.record.config import Config
from mechbench.sweep.job import Job


def test_order_is_json() -> None:
    cell = Cell(Config("a", "b", budget_tokens=1), "id", "g", {"operator": "a"})
    order = Job(Path("runs"), ("p.py",), 30.0).order(cell, "cpu")
    assert json.loads(json.dumps(order)) == {
        "call": {"operator": "a"}, "cell_id": "id", "device": "cpu", "out": "runs",
        "plugins": ["p.py"], "code": {}, "checkpoint_s": 30.0, "log": "none",
    }  # fmt: skip
