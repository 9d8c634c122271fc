"""The result of a cell whose process was killed and could not store one itself."""

from __future__ import annotations

from pathlib import Path

from mechbench.plan.resolve import task_of
from mechbench.record.config import Config
from mechbench.record.files import exclusive, make_folder
from mechbench.record.results import Result, read_result, write_json
from mechbench.training.outcome import empty_result


def store_failure(config: Config, device: str, out: str | Path, reason: str) -> Result:
    """Store that a cell failed, and why.

    Raises:
        BusyError: the cell is being run.
        ResultError: the folder cannot be written.
    """
    folder = Path(out) / config.cell_id
    make_folder(folder)
    with exclusive(folder):
        result = empty_result(config, task_of(config), device)
        write_json(folder / "config.json", config.to_dict())
        write_json(folder / "result.json", result | {"stop": "error", "reason": reason})
    return read_result(folder / "result.json")
