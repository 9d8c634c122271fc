"""A string of uniform symbols, a mark, and one answer that is due at the mark; lengths may vary."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.lengths import check_min_seqlen, draw_lengths

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Marked(Task):
    """A task of uniform symbols, the first tokens, and the mark behind them.

    seqlen counts the symbols. A shorter example, as min_seqlen allows, ends in padding, which is
    token 0 and asks for nothing.
    """

    __slots__ = ()

    n_symbols: ClassVar[int]  # the mark is the token behind them
    shortest: ClassVar[int] = 1  # number of symbols that is a question

    @abstractmethod
    def answers(self, symbols: Tensor) -> Tensor:
        """Return (B, T): the answer about the symbols (B, T) up to each position."""

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the symbols and the mark."""
        return self.seqlen + 1

    @property
    def easiest_seqlen(self) -> int:
        """Sixteen, but where lengths vary: then there are short ones anyway."""
        return self.seqlen if self.min_seqlen else 16

    def check_lengths(self, name: str) -> None:
        """Check seqlen and min_seqlen.

        Raises:
            ConfigError: min_seqlen outside [shortest, seqlen].
            SeqlenError: seqlen below the shortest.
        """
        if self.seqlen < self.shortest:
            raise SeqlenError(f"seqlen is {self.seqlen}: {name} needs at least {self.shortest}")
        check_min_seqlen(self.min_seqlen, self.seqlen, self.shortest)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + 1) examples on the generator's device."""
        import torch

        shape, device = (batch_size, self.seqlen), generator.device
        lengths = draw_lengths(batch_size, self.min_seqlen, self.seqlen, generator)
        symbols = torch.randint(self.n_symbols, shape, generator=generator, device=device)
        position = torch.arange(self.input_seqlen, device=device)
        inputs = torch.nn.functional.pad(symbols, (0, 1)).where(position < lengths, 0)
        inputs.scatter_(1, lengths, self.n_symbols)
        targets = torch.full_like(inputs, IGNORE)
        targets.scatter_(1, lengths, self.answers(symbols).gather(1, lengths - 1))
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Answer about all that stands before the mark; a window tells nothing."""
        if inputs.shape[1] < self.input_seqlen:
            return inputs * 0 + UNKNOWN
        return self.at_mark(inputs, self.answers(inputs))

    def at_mark(self, inputs: Tensor, answers: Tensor) -> Tensor:
        """Return (B, T): at a mark the answer (B, T) of the position before it, elsewhere -1."""
        import torch

        before = torch.nn.functional.pad(answers, (1, 0), value=UNKNOWN)[:, :-1]
        return torch.where(inputs == self.n_symbols, before, UNKNOWN)


class MarkedBits(Marked):
    """A task of uniform bits and the mark `=`; the answer is a bit as well."""

    __slots__ = ()

    n_symbols = 2

    def check_sizes(self, name: str) -> None:
        """Check vocab_size, seqlen and min_seqlen.

        Raises:
            ConfigError: vocab_size below 3, or min_seqlen outside [shortest, seqlen].
            SeqlenError: seqlen below the shortest.
        """
        if self.vocab_size < 3:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: {name} needs at least 3 (two bits, `=`)"
            )
        self.check_lengths(name)

    @property
    def chance(self) -> float:
        """A uniform guess between two answers."""
        return 0.5

    def describe(self, token: int) -> str:
        """Return the bit or `=`; of what is not used the number."""
        return "=" if token == self.n_symbols else str(token)


def of_the_last(values: Tensor, count: int) -> Tensor:
    """Return (B, T): the sum of the last `count` values (B, T) up to each position."""
    import torch

    sums = torch.nn.functional.pad(values.cumsum(1), (count, 0))
    return sums[:, count:] - sums[:, :-count]
