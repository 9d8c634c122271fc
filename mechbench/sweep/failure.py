"""The result of a cell that failed and could not store one itself, as its process was killed."""

from __future__ import annotations

from pathlib import Path

from mechbench.plan.resolve import task_of
from mechbench.record.config import Config
from mechbench.record.files import exclusive, make_folder
from mechbench.record.results import RETRIED, Result, read_or_set_aside, write_json
from mechbench.training.outcome import empty_result


def store_failure(config: Config, device: str, out: str | Path, reason: str) -> Result:
    """Store that a cell failed, and why; return that result.

    It is not stored in place of one that a smaller budget gave.

    Raises:
        BusyError: the cell is being run.
        ResultError: the folder cannot be written.
    """
    folder = Path(out) / config.cell_id
    make_folder(folder)
    with exclusive(folder):
        result = empty_result(config, task_of(config), device) | {"stop": "error", "reason": reason}
        path = folder / "result.json"
        before = read_or_set_aside(path, config.cell_id)[0]
        if before is None or before.data["status"] in RETRIED:
            write_json(folder / "config.json", config.to_dict())
            write_json(path, result)
    return Result(path, result)
