"""Letters, as `mechbench show` prints the tokens of a string."""

from __future__ import annotations

from string import ascii_lowercase


def letter(index: int) -> str:
    """Return a, b, ..., z, a2, b2, ..., a text of its own for each index from 0 on."""
    again, place = divmod(index, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(again + 1) if again else "")
