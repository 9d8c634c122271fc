"""A vocabulary of half keys, half values, enclosed by special tokens."""

from __future__ import annotations

from typing import ClassVar

from mechbench.tasks.base import Task


class Halves(Task):
    """A task whose V tokens are the `leading` specials, keys, values and a final special, V-1."""

    leading: ClassVar[tuple[str, ...]] = ()  # leading specials, as `mechbench show` prints them
    closing: ClassVar[str]

    @property
    def n_keys(self) -> int:
        """Number of key tokens; the other non-special tokens are values."""
        return (self.vocab_size - len(self.leading) - 1) // 2

    @property
    def n_values(self) -> int:
        """Number of value tokens."""
        return self.vocab_size - len(self.leading) - 1 - self.n_keys

    @property
    def chance(self) -> float:
        """A uniform guess among the values, which are half of the non-special tokens."""
        return 1.0 / self.n_values

    def describe(self, token: int) -> str:
        """Return k1, k2, ..., v1, v2, ..., or the special token's own text."""
        if token == self.vocab_size - 1:
            return self.closing
        if token < len(self.leading):
            return self.leading[token]
        number, K = token - len(self.leading) + 1, self.n_keys
        return f"k{number}" if number <= K else f"v{number - K}"
