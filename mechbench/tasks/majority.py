"""Majority: which token occurred most often?

One example with V = 8 and L = 7:

    position   0  1  2  3  4  5  6
    inputs     0  6  6  6  4  5  6
    targets    .  .  .  .  .  .  6

A favourite, uniform over the V tokens, stands at each position with probability p; the other
positions are uniform over all tokens. The answer is the most frequent token; if several tie, the
one that occurred last. Source: Poli et al. 2023 (Hyena), table 4.1 and appendix A.1, which give the
example above and the axes (length, vocabulary), but not the distribution. Ours: p = lead
sqrt(2/(L V)), so that at every length the favourite's expected lead over any other token is `lead`
standard deviations, of which a window of W tokens sees sqrt(W / L). With lead 0 all tokens are
uniform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.shortcuts import most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges


@register_task(
    "majority", source="Poli et al. 2023 (Hyena), table 4.1 and appendix A.1", measures="arithmetic"
)
@dataclass(frozen=True)
class Majority(Task):
    """Majority: name the token that occurred most often.

    Attributes:
        vocab_size: V, tokens.
        seqlen: L, tokens of an example.
        lead: expected lead of the favourite over any other token, in standard deviations.

    Raises:
        ConfigError: vocab_size below 2, or lead negative or not finite.
    """

    vocab_size: int
    seqlen: int
    lead: float = 3.0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 20, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.vocab_size < 2:
            raise ConfigError(f"vocab_size is {self.vocab_size}: majority needs at least 2")
        if not 0 <= self.lead < math.inf:
            raise ConfigError(f"lead is {self.lead}: expected 0 or more")

    @property
    def _favoured(self) -> float:
        return min(0.5, self.lead * math.sqrt(2 / (self.seqlen * self.vocab_size)))

    @property
    def chance(self) -> float:
        """A uniform guess among the tokens: 1 / V."""
        return 1.0 / self.vocab_size

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last token, and the majority of the last quarter."""
        return {"last token": lambda inputs: inputs, "last quarter's majority": self._last_quarter}

    @property
    def easiest_seqlen(self) -> int:
        """Short enough that one token in 64 matters; a lead means the same at any length."""
        return 64

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L = batch_size, self.seqlen
        device = generator.device

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        favourite = draw(self.vocab_size, B, 1)
        favoured = draw(_RANGE, B, L) < self._favoured * _RANGE
        inputs = torch.where(favoured, favourite, draw(self.vocab_size, B, L))
        targets = torch.full_like(inputs, IGNORE)
        targets[:, -1] = self._rank(inputs).argmax(1)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Count; a window decides if its winner stays ahead whatever stands before the window."""
        import torch

        length = inputs.shape[1]
        top = self._rank(inputs).topk(2, 1)
        count = top.values // (length + 1)
        hidden = self.seqlen - length
        told = (count[:, 0] - count[:, 1] > hidden) | (hidden == 0)
        answers = torch.full_like(inputs, UNKNOWN)
        answers[:, -1] = torch.where(told, top.indices[:, 0], UNKNOWN)
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the window's own winner.

        No other token is likelier: take any hidden part with which another token wins, and swap the
        two tokens in it. The result is at least as likely, and the window's winner wins.
        """
        return self._rank(inputs).argmax(1)

    def _rank(self, inputs: Tensor) -> Tensor:
        """Return (B, V): the counts, times L + 1, plus where each token occurred last."""
        import torch

        B, L = inputs.shape
        position = torch.arange(L, device=inputs.device).expand(B, L)
        blank = torch.zeros(B, self.vocab_size, dtype=torch.int64, device=inputs.device)
        last = blank.scatter_reduce(1, inputs, position, "amax")
        return blank.scatter_add(1, inputs, torch.full_like(inputs, L + 1)) + last

    def _last_quarter(self, inputs: Tensor) -> Tensor:
        seen = inputs[:, -max(1, self.seqlen // 4) :]
        return most_frequent(seen, 0, self.vocab_size)[:, :1].expand_as(inputs)
