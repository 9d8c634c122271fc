"""What a sweep asks of whoever runs its cells. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechbench.plan.suite import Cell

ATTEMPTS = 2  # of a cell whose worker dies


@dataclass(frozen=True)
class Job:
    """What every order of a sweep has in common."""

    out: Path
    plugins: tuple[str, ...]
    checkpoint_s: float
    log: str = "none"  # tracker, see mechbench.console.tracking

    def order(self, cell: Cell, device: str) -> dict[str, Any]:
        """Return the order to run `cell` on `device`."""
        return {
            "call": dict(cell.call),
            "cell_id": cell.cell_id,
            "device": device,
            "out": str(self.out),
            "plugins": list(self.plugins),
            "code": {**cell.config.plugins, **cell.config.sources},  # to say what has changed
            "checkpoint_s": self.checkpoint_s,
            "log": self.log,
        }
