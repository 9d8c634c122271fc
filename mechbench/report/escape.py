"""Escaping: text from files and users made harmless wherever it is shown. No torch.

Names, options, reasons and devices come from files that nobody vouches for. `plain` makes one line
of visible characters of them, and the others put that into Markdown, HTML or a spreadsheet.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols that show nothing
# Control and formatting characters (writing direction, zero width), halves, unassigned, separators.
_UNSEEN = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"))
_FORMULA = tuple("=+-@")  # what a spreadsheet runs


def plain(text: object, limit: int | None = None) -> str:
    r"""Return one line of visible characters: "\x1b" and "\u202e" for what cannot be seen.

    Args:
        text: anything; blanks and line breaks become single spaces.
        limit: characters at most; of longer text the middle is left out.
    """
    line = re.sub(r"[ \t\r\n\f\v]+", " ", str(text)).strip()
    if not (line.isascii() and line.isprintable()):
        line = "".join(map(_visible, line))
    if limit is None or len(line) <= limit:
        return line
    head = (limit - 1) // 2
    return f"{line[:head]}…{line[head + 1 - limit :]}"


def _visible(char: str) -> str:
    hidden = unicodedata.category(char) in _UNSEEN and char != " "
    return char.encode("unicode_escape").decode() if hidden or char in _BLANK else char


def markdown(text: object) -> str:
    """Return text that Markdown shows as it is: no emphasis, link, code, HTML, formula or cell."""
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", plain(text))
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line).replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # within a word it is a letter
    line = re.sub(r":(?=//)|(?<=\bwww)\.", r"\\\g<0>", line, flags=re.IGNORECASE)
    return re.sub(r"^(?=[#+=-])|^\d+(?=[.)]( |$))", r"\g<0>\\", line)  # a heading, a list


def html_text(text: object) -> str:
    """Return text for the content of an HTML element or a quoted attribute."""
    return html.escape(plain(text))


def csv_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet runs: such text gets an apostrophe; numbers stay numbers.

    `from_csv_cell` takes it away again.
    """
    if not isinstance(value, str):
        return value
    line = plain(value)
    return f"'{line}" if line.lstrip("'").startswith(_FORMULA) and not _is_number(line) else line


def from_csv_cell(text: str) -> str:
    """Return the line that `csv_cell` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA) else text


def csv_text(lines: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return a table as CSV with line feeds, the one writer of all tables.

    Not by pandas: loading it would cost every run more than all its tables, and it turns whole
    numbers next to an empty cell into fractions.

    Args:
        lines: a row each.
        columns: of the header; by default the keys of the first line.
    """
    names = columns or list(lines[0] if lines else ())
    if not names:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in line.items()} for line in lines)
    return text.getvalue()


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) is not None
