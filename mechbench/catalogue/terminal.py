"""Text for a terminal of 80 columns. No torch."""

from __future__ import annotations

import textwrap

COLUMNS = 80


def wrapped(text: str, indent: str, first: str = "") -> list[str]:
    """Return the lines of a text: `first` before the first, `indent` before the others."""
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )
