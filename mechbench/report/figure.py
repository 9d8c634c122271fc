"""A figure as files, with the same bytes for the same figure. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mechbench.record.files import write_atomic
from mechbench.report.fitting import boxes_for_glyphs, shortened, wrapped
from mechbench.report.style import SUPTITLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def save_figure(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write STEM.png and STEM.svg, without date, version or random ids; return the paths.

    Args:
        figure: to be saved.
        stem: path of the files without suffix.
        formats: some of "png", "svg" and "pdf".

    Raises:
        ResultError: a file cannot be written.
    """
    import matplotlib

    paths = []
    for kind in formats:
        path = stem.with_name(f"{stem.name}.{kind}")

        def write(file: IO[bytes], kind: str = kind) -> None:
            figure.savefig(file, format=kind, metadata=_METADATA[kind])

        with matplotlib.rc_context({"svg.hashsalt": "mechbench"}), boxes_for_glyphs():
            write_atomic(path, write)
        paths.append(path)
    return paths


def give_title(figure: Figure, title: str) -> None:
    """Write a title over a figure, as wide as it is; an operator's name is no formula."""
    text = shortened([title], 200)[title]
    width = figure.get_size_inches()[0] - 0.4
    figure.suptitle(wrapped(text, width, SUPTITLE, 200, indent=""), parse_math=False)
