"""A vocabulary of keys, then values, half each, and one token more."""

from __future__ import annotations


class Halves:
    """What a task has whose V tokens are keys, values and one special, V-1."""

    vocab_size: int

    @property
    def n_keys(self) -> int:
        """Number of keys, the first tokens; values follow."""
        return (self.vocab_size - 1) // 2

    @property
    def n_values(self) -> int:
        """Number of values."""
        return self.vocab_size - 1 - self.n_keys

    @property
    def chance(self) -> float:
        """A uniform guess among the values: 2 / (V - 1) for odd V."""
        return 1.0 / self.n_values
