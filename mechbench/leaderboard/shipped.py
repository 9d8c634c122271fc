"""The boards that come with mechbench. No torch."""

from __future__ import annotations

from pathlib import Path

from mechbench.plan.suite_names import shipped_folder


def shipped_boards() -> list[Path]:
    """Return the results.csv of every board that comes with mechbench, sorted."""
    return sorted(shipped_folder("_leaderboards", "leaderboards").glob("*/results.csv"))
