"""Names made to fit a figure: wrapped by width, the middle of long ones left out. No torch."""

from __future__ import annotations

import contextlib
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

from mechbench.report.escape import plain
from mechbench.report.style import FONT

_SHORTEST = 8  # characters a line


@contextlib.contextmanager
def boxes_for_glyphs() -> Iterator[None]:
    """Let letters that the font lacks be drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


@lru_cache(maxsize=4096)
def inches(text: str, size: float) -> float:
    """Return how wide a line is at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with boxes_for_glyphs():
        width = text_to_path.get_text_width_height_descent(
            text, FontProperties(family=FONT, size=size), ismath=False
        )[0]
    return float(width) / 72


def wrapped(text: str, width: float, size: float, columns: int, indent: str = "  ") -> str:
    """Return text in lines of at most `columns` characters, none wider than `width` inches."""
    line = plain(text)
    for limit in range(columns, _SHORTEST - 1, -1):
        lines = textwrap.wrap(line, limit, subsequent_indent=indent)
        if max((inches(part, size) for part in lines), default=0.0) <= width:
            break
    return "\n".join(lines)


def shortened(names: Iterable[str], limit: int = 150) -> dict[str, str]:
    """Return {name: text of at most `limit` characters}, different names by different texts.

    The middle of a long name is left out; where that leaves two the same, what tells them apart
    stands between its ends.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[plain(name, limit)].append(name)
    texts: dict[str, str] = {}
    for text, group in groups.items():
        if len(group) == 1:
            texts[group[0]] = text
            continue
        end = limit // 4
        lines = [plain(name) for name in group]
        columns = enumerate(zip(*lines, strict=False))
        differ = next((i for i, letters in columns if len(set(letters)) > 1), len(min(lines)))
        for number, (name, line) in enumerate(zip(group, lines, strict=True), 1):
            middle = line[max(end, differ - end // 2) :][: limit - 2 * end - 12]
            told = f"{line[:end]}…{middle}…{line[-end:]}"
            taken = told in texts.values()
            texts[name] = f"{told} #{number}" if taken else told
    return texts
