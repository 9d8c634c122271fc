"""On which line of a TOML file a key stands, which `tomllib` does not tell. No torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

Key = tuple[str | int, ...]  # a path of keys and list positions


def key_lines(text: str) -> dict[Key, int]:
    """Return {path of a key or list element: number of the line where its statement begins}.

    `text` must be valid TOML. Keys within an inline table or a list stand where it begins.
    """
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}  # elements so far of each [[array of tables]]
    prefix: Key = ()
    pending, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not pending:
            start = number
        pending += line + "\n"
        try:
            found = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue  # a string or list that goes on
        statement, pending = pending.strip(), ""
        if statement.startswith("["):
            prefix = _header(found, statement.startswith("[["), counts)
            for n in range(1, len(prefix)):
                lines.setdefault(prefix[:n], start)
            lines[prefix] = start
        else:
            _record(found, prefix, start, lines)
    return lines


def line_of(lines: Mapping[Key, int], path: Key) -> int | None:
    """Return the line of `path`, or of the nearest thing around it that has one."""
    for n in range(len(path), 0, -1):
        if path[:n] in lines:
            return lines[path[:n]]
    return None


def _header(found: dict[str, Any], is_array: bool, counts: dict[Key, int]) -> Key:
    """Return the path of a [table] or of a new element of a [[list]]."""
    path: Key = ()
    inner: Any = found
    while isinstance(inner, dict) and inner:
        ((key, inner),) = inner.items()
        path += (key,)
        last = isinstance(inner, list) or not inner
        if last and is_array:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path += (counts[path] - 1,)
    return path


def _record(value: Any, path: Key, line: int, lines: dict[Key, int]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        lines.setdefault((*path, key), line)
        if isinstance(inner, dict | list):
            _record(inner, (*path, key), line, lines)
