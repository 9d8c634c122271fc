"""Counting: how often did the last token occur?

One example with V = 8 (symbols 0 to 3, then the counts #1 to #4) and L = 7:

    position   0  1  2  3  4  5  6
    inputs     0  1  1  1  0  2  1
    targets    .  .  .  .  .  .  #4

The count, which includes the last token, is uniform over 1 to V/2. The token's other occurrences
are at positions chosen uniformly, and the rest is uniform over the other symbols. Source: Poli et
al. 2023 (Hyena), table 4.1 and appendix A.1, which give the example above and the axes (length,
vocabulary), but not the distribution. We chose a uniform count so that a constant guess gains
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.distinct import draw_distinct

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "counting", source="Poli et al. 2023 (Hyena), table 4.1 and appendix A.1", measures="arithmetic"
)
@dataclass(frozen=True)
class Counting(Task):
    """Counting: say how often the last token occurred.

    Attributes:
        vocab_size: V: the last V // 2 tokens are counts, the others symbols.
        seqlen: L, tokens of an example.

    Raises:
        ConfigError: vocab_size below 4.
        SeqlenError: seqlen below V // 2, the largest count.
    """

    vocab_size: int
    seqlen: int

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 20, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: counting needs at least 4 "
                "(two symbols, two counts)"
            )
        if self.seqlen < self.n_counts:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: counting to {self.n_counts} (vocab_size "
                f"{self.vocab_size}) needs at least {self.n_counts}"
            )

    @property
    def n_counts(self) -> int:
        """The largest count; counts run from 1 to this."""
        return self.vocab_size // 2

    @property
    def _n_symbols(self) -> int:
        return self.vocab_size - self.n_counts

    @property
    def chance(self) -> float:
        """A uniform guess among the counts: 2 / V for even V."""
        return 1.0 / self.n_counts

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The count within the second half only."""
        return {"count in the last half": self._last_half}

    @property
    def easiest_seqlen(self) -> int:
        """The power of two that holds every count, 32 at least."""
        return max(32, 1 << (self.n_counts - 1).bit_length())

    def describe(self, token: int) -> str:
        """Return the number of the symbol, or #1, #2, ... for the counts."""
        symbols = self._n_symbols
        return str(token) if token < symbols else f"#{token - symbols + 1}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, C = batch_size, self.seqlen, self.n_counts
        device = generator.device

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        asked = draw(self._n_symbols, B, 1)
        others = draw(self._n_symbols - 1, B, L)
        inputs = others + (others >= asked)
        count = draw(C, B, 1)  # occurrences besides the last position
        places = draw_distinct(B, C - 1, L - 1, generator)
        unused = torch.arange(C - 1, device=device) >= count
        places = torch.where(unused, L - 1, places)
        inputs.scatter_(1, places, asked.expand(B, C - 1))
        inputs[:, -1:] = asked
        targets = torch.full_like(inputs, IGNORE)
        targets[:, -1:] = self._n_symbols + count
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Count; a window decides if it is the whole example or already holds the largest count."""
        import torch

        count = self._count(inputs)
        told = (count == self.n_counts) | (inputs.shape[1] == self.seqlen)
        answers = torch.full_like(inputs, UNKNOWN)
        answers[:, -1] = torch.where(told, self._n_symbols + count - 1, UNKNOWN)
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the likeliest count: of n occurrences, c fall into the window, as in urn draws.

        P(c | n) = C(W - 1, c - 1) C(L - W, n - c) / C(L - 1, n - 1), with a uniform prior on n.
        """
        import torch

        L, W, C = self.seqlen, inputs.shape[1], self.n_counts
        counts, which = torch.unique(self._count(inputs), return_inverse=True)
        hidden = torch.arange(1, C + 1, device=inputs.device) - counts[:, None]  # (counts, C)
        n = (hidden + counts[:, None]).double()
        possible = (hidden >= 0) & (hidden <= L - W)
        hidden = hidden.clamp(0, L - W).double()
        log_p = -torch.lgamma(hidden + 1) - torch.lgamma(L - W - hidden + 1)
        log_p += torch.lgamma(n) + torch.lgamma(L - n + 1)
        likeliest = log_p.masked_fill(~possible, -torch.inf).argmax(1)
        return self._n_symbols + likeliest[which]

    def _count(self, inputs: Tensor) -> Tensor:
        return (inputs == inputs[:, -1:]).sum(1)

    def _last_half(self, inputs: Tensor) -> Tensor:
        count = self._count(inputs[:, -max(1, self.seqlen // 2) :])
        return (self._n_symbols + count - 1)[:, None].expand_as(inputs)
