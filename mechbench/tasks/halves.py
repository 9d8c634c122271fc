"""A vocabulary of keys, then values, half each, between special tokens."""

from __future__ import annotations

from typing import ClassVar

from mechbench.tasks.base import Task


class Halves(Task):
    """A task whose V tokens are `leading` specials, keys, values and one special more, V-1."""

    leading: ClassVar[tuple[str, ...]] = ()  # specials as `mechbench show` prints them
    closing: ClassVar[str]

    @property
    def n_keys(self) -> int:
        """Number of key tokens; values take the rest."""
        return (self.vocab_size - len(self.leading) - 1) // 2

    @property
    def n_values(self) -> int:
        """Number of value tokens."""
        return self.vocab_size - len(self.leading) - 1 - self.n_keys

    @property
    def chance(self) -> float:
        """A uniform guess among the values, half of what is no special."""
        return 1.0 / self.n_values

    def describe(self, token: int) -> str:
        """Return k1, k2, ..., v1, v2, ... or a special."""
        if token == self.vocab_size - 1:
            return self.closing
        if token < len(self.leading):
            return self.leading[token]
        number, K = token - len(self.leading) + 1, self.n_keys
        return f"k{number}" if number <= K else f"v{number - K}"
