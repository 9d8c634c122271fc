from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mechbench.results import write_json
from mechbench.spec import Config
from mechbench.stored import doubt, stored_result

CONFIG = Config("hyena", "recall", budget_tokens=1000, eval_seqlens=(64, 128))
ID = CONFIG.cell_id
SCORED = [{"seqlen": length, "n": 4, "correct": 1, "accuracy": 0.25} for length in (64, 128)]


def data(**changes: Any) -> dict[str, Any]:
    return {
        "schema_version": 1, "cell_id": ID, "status": "ok", "reason": None, "chance": 0.1,
        "config": CONFIG.to_dict(), "evaluations": SCORED, "provenance": {}, **changes,
    }  # fmt: skip


def test_a_whole_result_is_believed() -> None:
    assert doubt(data(), ID) is None
    assert doubt(data(status="error", evaluations=[]), ID) is None


DOUBTED = [
    ({"evaluations": []}, "it lacks the evaluation at seqlen 64, 128"),
    ({"evaluations": SCORED[:1]}, "it lacks the evaluation at seqlen 128"),
    ({"evaluations": [3, None]}, "it lacks the evaluation at seqlen 64, 128"),
    ({"config": {}}, "its configuration cannot be read"),
    ({"config": None}, "its configuration cannot be read"),
    ({"config": CONFIG.to_dict() | {"plugins": []}}, "its configuration cannot be read"),
    ({"config": CONFIG.to_dict() | {"seed": 1}}, "its configuration is that of another cell"),
    ({"cell_id": "0" * 16}, "it belongs to cell 0000000000000000"),
    ({"status": "error", "config": {}}, "its configuration cannot be read"),
]


@pytest.mark.parametrize(("changes", "reason"), DOUBTED)
def test_what_is_not_the_result_of_its_cell_is_doubted(
    changes: dict[str, Any], reason: str
) -> None:
    found = doubt(data(**changes), ID)
    assert found is not None
    assert found.startswith(reason)
    assert "\n" not in found


def test_what_is_doubted_is_set_aside(tmp_path: Path) -> None:
    assert stored_result(tmp_path, ID) == (None, None)
    path = tmp_path / "result.json"
    write_json(path, data())
    found, warning = stored_result(tmp_path, ID)
    assert found is not None
    assert (found.data, warning) == (data(), None)
    write_json(path, data(evaluations=[]))
    found, warning = stored_result(tmp_path, ID)
    assert found is None
    assert warning == (
        f"{path} is not believed: it lacks the evaluation at seqlen 64, 128; set aside as "
        "result.json.corrupt-1, the cell runs"
    )
    assert not path.exists()
