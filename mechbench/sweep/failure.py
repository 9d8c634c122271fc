"""The result of a cell that ended in a way that nothing in its own process could catch."""

from __future__ import annotations

from pathlib import Path

from mechbench.atomic import exclusive, make_folder
from mechbench.outcome import empty_result
from mechbench.resolve import task_of
from mechbench.results import Result, read_result, write_json
from mechbench.spec import Config


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
