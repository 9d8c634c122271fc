"""Whether a stored result is that of the cell it lies at, so that it need not run. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechbench.atomic import set_aside
from mechbench.errors import ConfigError
from mechbench.results import Result, read_or_set_aside
from mechbench.spec import Config


def doubt(data: Mapping[str, Any], cell_id: str) -> str | None:
    """Return why a result is not the whole result of the cell `cell_id`, None if it is."""
    if data["cell_id"] != cell_id:
        return f"it belongs to cell {data['cell_id']}"
    try:
        config = Config.from_dict(data["config"])
        if config.cell_id != cell_id:
            return "its configuration is that of another cell"
    except (ConfigError, AttributeError, TypeError, ValueError) as error:
        return f"its configuration cannot be read: {' '.join(str(error).split())}"
    if data["status"] == "ok":
        scored = {e.get("seqlen") for e in data["evaluations"] if isinstance(e, Mapping)}
        missing = [length for length in config.eval_seqlens if length not in scored]
        if missing:
            return f"it lacks the evaluation at seqlen {', '.join(map(str, missing))}"
    return None


def stored_result(folder: Path, cell_id: str) -> tuple[Result | None, str | None]:
    """Return (result, None), (None, warning) after renaming what cannot be it, or (None, None)."""
    path = folder / "result.json"
    result, warning = read_or_set_aside(path)
    if result is None or (reason := doubt(result.data, cell_id)) is None:
        return result, warning
    return None, (
        f"{path} is not believed: {reason}; set aside as {set_aside(path).name}, the cell runs"
    )
