"""Cycle navigation: where on a cycle does a walk end?

One example with n_positions = 5 (moves 0 + -, `=`, then the positions p0 to p4), L = 5 and 4 moves,
as min_seqlen allows:

    position  0  1  2  3   4  5
    inputs    +  +  0  -   =  0
    targets   .  .  .  .  p1  .

Uniform moves, which stay, go one on or one back on a cycle, from p0; then `=`, at which the
position is due. Behind it stands padding, which is the move 0 and asks for nothing. Source:
Deletang et al. 2022 (arXiv:2207.02098), "cycle navigation", with a cycle of 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError
from mechbench.tasks.marked import Marked, of_the_last

if TYPE_CHECKING:
    from torch import Tensor

_FIRST = 4  # token of position 0, behind the moves 0, + and - and the mark


@register_task(
    "cycle-navigation", source="Deletang et al. 2022 (arXiv:2207.02098)", measures="state tracking"
)
@dataclass(frozen=True)
class CycleNavigation(Marked):
    """Cycle navigation: name the position on a cycle where a walk ends.

    Attributes:
        vocab_size: V, at least n_positions + 4: three moves, `=` and the positions; the others are
            not used.
        seqlen: L, most moves of an example; a model reads L + 1 tokens.
        n_positions: of the cycle.
        min_seqlen: fewest moves; 0 for L alone.

    Raises:
        ConfigError: n_positions below 3, vocab_size too small, or min_seqlen outside [1, seqlen].
        SeqlenError: seqlen below 1.
    """

    vocab_size: int
    seqlen: int
    n_positions: int = 5
    min_seqlen: int = 0

    version: ClassVar[int] = 1
    n_symbols: ClassVar[int] = 3
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 9, "seqlen": 40}

    def __post_init__(self) -> None:
        if self.n_positions < 3:
            raise ConfigError(f"n_positions is {self.n_positions}: expected at least 3")
        if self.vocab_size < self.n_positions + _FIRST:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: cycle-navigation on {self.n_positions} "
                f"positions needs at least {self.n_positions + _FIRST} (three moves, `=`, the "
                "positions)"
            )
        self.check_lengths("cycle-navigation")

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return as many tokens as the positions need, and L 40."""
        return {**cls.defaults, "vocab_size": options["n_positions"] + _FIRST}

    @property
    def chance(self) -> float:
        """A uniform guess among the positions, where walks are long enough to reach all alike."""
        return 1.0 / self.n_positions

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Where the last move, or the last eight, would lead."""
        return {
            "last move": partial(self._of_the_last, count=1),
            "last 8 moves": partial(self._of_the_last, count=8),
        }

    def describe(self, token: int) -> str:
        """Return 0, + or -, `=`, or p0, p1, ... for positions; # stands for what is not used."""
        if token < _FIRST:
            return "0+-="[token]
        place = token - _FIRST
        return f"p{place}" if place < self.n_positions else f"#{token}"

    def answers(self, symbols: Tensor) -> Tensor:
        """Return where one is after each move."""
        return self._place(_steps(symbols).cumsum(1))

    def _place(self, walked: Tensor) -> Tensor:
        return walked % self.n_positions + _FIRST

    def _of_the_last(self, inputs: Tensor, count: int) -> Tensor:
        return self.at_mark(inputs, self._place(of_the_last(_steps(inputs), count)))


def _steps(moves: Tensor) -> Tensor:
    """Return 0, 1 or -1 for each move, 0 for what is none."""
    return (moves == 1).long() - (moves == 2).long()
