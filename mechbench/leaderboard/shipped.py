"""The boards that come with mechbench. No torch."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_boards() -> list[Path]:
    """Return the results.csv of every board that comes with mechbench, sorted."""
    folder = _PACKAGE / "_leaderboards"  # in a wheel; a checkout has them beside the package
    if not folder.is_dir():
        folder = _PACKAGE.parent / "leaderboards"
    return sorted(folder.glob("*/results.csv"))
