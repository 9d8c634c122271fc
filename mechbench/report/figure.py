"""A figure as files, with the same bytes for the same figure. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mechbench.atomic import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METADATA: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}}


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png and STEM.svg, without date, version or random ids; return the paths.

    Raises:
        ResultError: a file cannot be written.
    """
    import matplotlib

    paths = []
    for suffix, metadata in _METADATA.items():
        path = stem.with_name(stem.name + suffix)

        def write(
            file: IO[bytes], suffix: str = suffix, metadata: dict[str, Any] = metadata
        ) -> None:
            figure.savefig(file, format=suffix[1:], metadata=metadata)

        with matplotlib.rc_context({"svg.hashsalt": "mechbench"}):
            write_atomic(path, write)
        paths.append(path)
    return paths
