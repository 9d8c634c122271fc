"""K-hop induction: go back k times to what followed the same symbol before.

One example with 3 symbols (0 1 2, `none` = 3, then `k0` `k1` `k2`), L = 9 and k = 2:

    position       0  1  2  3  4  5  6  7  8
    inputs        k2  0  1  0  2  1  2  0  1
    one hop           -  -  2  -  3  5  4  6    (the positions that find() names)
    dense targets  .  n  n  n  n  1  0  n  1    (n: none)

With X the symbols behind the first token, find(i) is the largest j <= i with X_{j-1} = X_i. The
answer at i is X at find applied k times, or `none` if one of the hops finds nothing. Neighbours are
unequal, otherwise symbols are uniform; the first token tells k, uniform over 0 to max_hops. Source:
Sanford et al. 2024, arXiv:2402.09268, whose experiments have 4 symbols, 100 positions and k to 16,
and ask at every position, as the released generator does.

That generator tests on beginnings that training has seen: the first positions have few. So here
the positions at which less than 40 bits have been drawn are dense targets only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.hidden_hops import hidden_hops
from mechbench.tasks.previous_occurrence import previous_occurrence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BITS = 40  # drawn before the first scored position


@register_task("k-hop", source="Sanford et al. 2024, arXiv:2402.09268", measures="recall")
@dataclass(frozen=True)
class KHop(Task):
    """K-hop induction: follow k times what came after the same symbol.

    Attributes:
        vocab_size: V: the symbols, `none`, a token for each number of hops, and unused ones.
        seqlen: L, tokens of an example: the number of hops, then L - 1 symbols.
        n_symbols: symbols.
        max_hops: the largest number of hops.
        hops: number of hops of every example; -1 draws it uniformly from 0 to max_hops.

    Raises:
        ConfigError: vocab_size too small, n_symbols below 3, max_hops negative, or hops beyond it.
        SeqlenError: seqlen below 2.
    """

    vocab_size: int
    seqlen: int
    n_symbols: int = 4
    max_hops: int = 16
    hops: int = -1

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 22, "seqlen": 100}

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the smallest vocabulary that the options allow."""
        return {**cls.defaults, "vocab_size": options["n_symbols"] + options["max_hops"] + 2}

    def __post_init__(self) -> None:
        if self.n_symbols < 3:
            raise ConfigError(
                f"n_symbols is {self.n_symbols}: expected at least 3 (neighbours are unequal)"
            )
        if self.max_hops < 0:
            raise ConfigError(f"max_hops is {self.max_hops}: expected 0 or more")
        if not -1 <= self.hops <= self.max_hops:
            raise ConfigError(
                f"hops is {self.hops}: expected -1 (drawn), or 0 to max_hops ({self.max_hops})"
            )
        least = self.n_symbols + self.max_hops + 2
        if self.vocab_size < least:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: k-hop with {self.n_symbols} symbols and up to "
                f"{self.max_hops} hops needs at least {least}"
            )
        if self.seqlen < 2:
            raise SeqlenError(f"seqlen is {self.seqlen}: k-hop needs at least 2")

    @property
    def _fixed(self) -> int | None:
        """Number of hops where the options tell it."""
        return self.hops if self.hops >= 0 else 0 if self.max_hops == 0 else None

    @property
    def apart_by(self) -> int:
        """Tokens with which 40 bits have been drawn, at most all."""
        bits = math.log2(self.n_symbols)
        bits += 0 if self._fixed is not None else math.log2(self.max_hops + 1)
        more = math.ceil(max(0, _BITS - bits) / math.log2(self.n_symbols - 1))
        return min(self.seqlen, 2 + more)

    @property
    def chance(self) -> float:
        """A uniform guess among the symbols and `none`, which no answer is without a hop."""
        return 1.0 / (self.n_symbols + (self._fixed != 0))

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent answer, no hop, one hop, and at most half of the largest number."""
        rules: dict[str, Callable[[Tensor], Tensor]] = {
            "most frequent answer": self._most_frequent_answer
        }
        half = self.max_hops // 2
        names = {"no hop": (0, 0), "one hop": (1, 1), f"at most {half} hops": (0, half)}
        for name, (least, most) in names.items():
            solves = self._fixed is not None and least <= self._fixed <= most
            if most <= self.max_hops and not solves:
                rules[name] = partial(self._clamped, least=least, most=most)
        return rules

    @property
    def easiest_seqlen(self) -> int:
        """The power of two within which the largest number of hops often ends; at least 32."""
        return max(32, 1 << (self.max_hops * (self.n_symbols - 1)).bit_length())

    def describe(self, token: int) -> str:
        """Return the symbol's number, `none`, or k0, k1, ..."""
        if token < self.n_symbols:
            return str(token)
        hops = token - self.n_symbols - 1
        return "none" if hops < 0 else f"k{hops}" if hops <= self.max_hops else f"unused {token}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, S = batch_size, self.seqlen, self.n_symbols
        device = generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        low, high = (0, self.max_hops) if self._fixed is None else (self._fixed, self._fixed)
        steps = torch.cat([draw(0, S, B, 1), draw(1, S, B, L - 2)], 1)
        symbols = steps.cumsum(1) % S
        inputs = torch.cat([S + 1 + draw(low, high + 1, B, 1), symbols], 1)  # (B, L)
        answers = self._answers(inputs, self._n_hops(inputs))
        dense, targets = answers.clone(), answers
        dense[:, 0] = IGNORE
        targets[:, : max(1, self.apart_by - 1)] = IGNORE
        return Batch(inputs, targets, dense)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Hop; a window that hides the number of hops, or a hop's end, does not tell."""
        import torch

        if inputs.shape[1] == self.seqlen:
            answers = self._answers(inputs, self._n_hops(inputs))
            answers[:, 0] = UNKNOWN
            return answers
        if self._fixed is None:
            return torch.full_like(inputs, UNKNOWN)
        first = torch.full_like(inputs[:, :1], self.n_symbols + 1 + self._fixed)
        answers = self._answers(torch.cat([first, inputs], 1), self._n_hops(first))[:, 1:]
        told = (answers != self.n_symbols) & (inputs < self.n_symbols)
        return torch.where(told, answers, UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the likeliest answer over the possible numbers of hops and hidden symbols."""
        import torch

        S, W = self.n_symbols, inputs.shape[1]
        table = hidden_hops(S, self.max_hops, self.seqlen).float().to(inputs.device)
        hidden = (at - W)[:, None]  # symbols before the window
        hop = self._hop(torch.nn.functional.pad(inputs, (1, 0)))
        place = torch.full_like(hidden, W)  # in the window, from 1
        left = torch.zeros_like(hidden)  # hops that lead out of it
        score = torch.zeros(len(inputs), S + 1, device=inputs.device)
        for hops in range(self.max_hops + 1):
            if hops == self._fixed or self._fixed is None:
                score += self._beyond(inputs, place, left, hidden, table)
            after = hop.gather(1, place)
            left += after == 0
            place = torch.where(after > 0, after, place)
        return score.argmax(1)

    def _beyond(
        self, inputs: Tensor, place: Tensor, left: Tensor, hidden: Tensor, table: Tensor
    ) -> Tensor:
        """Return (B, S + 1): probabilities of the answers `left` hops back from `place`."""
        import torch

        S = self.n_symbols
        here, first = inputs.gather(1, place - 1), inputs[:, :1]
        # From the window's first place, any other symbol may stand before it.
        at_first = place == 1
        x, y, other, none = table[(hidden - at_first.long()).clamp_min(0), left].unbind(2)
        mixed = (y + (S - 2) * other) / (S - 1)
        y, other = torch.where(at_first, mixed, y), torch.where(at_first, mixed, other)
        score = torch.cat([other.expand(-1, S), none], 1)
        return score.scatter(1, first, y).scatter(1, here, x)

    def _clamped(self, inputs: Tensor, least: int, most: int) -> Tensor:
        return self._answers(inputs, self._n_hops(inputs).clamp(least, most))

    def _n_hops(self, inputs: Tensor) -> Tensor:
        """Return (B, 1): the number of hops that the first token tells; 0 if it is a symbol."""
        return (inputs[:, :1] - self.n_symbols - 1).clamp(0, self.max_hops)

    def _hop(self, inputs: Tensor) -> Tensor:
        """Return (B, L): find() of each position, 0 for nothing found, and at 0."""
        import torch

        found = previous_occurrence(inputs[:, 1:])  # counts from the first symbol
        found = torch.where(found >= 0, found + 2, 0)
        return torch.nn.functional.pad(found, (1, 0))

    def _answers(self, inputs: Tensor, hops: Tensor) -> Tensor:
        """Return (B, L): the answers for (B, 1) numbers of hops, by repeated doubling of a hop."""
        import torch

        hop = self._hop(inputs)
        place = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
        for bit in range(self.max_hops.bit_length()):
            place = torch.where((hops >> bit) % 2 == 1, hop.gather(1, place), place)
            if bit + 1 < self.max_hops.bit_length():
                hop = hop.gather(1, hop)
        return torch.where(place > 0, inputs.gather(1, place), self.n_symbols)

    def _most_frequent_answer(self, inputs: Tensor) -> Tensor:
        """Name `none` or a symbol, whichever is likelier at the scored positions."""
        import torch

        none = hidden_hops(self.n_symbols, self.max_hops, self.seqlen)[..., 3]
        behind = torch.arange(max(1, self.apart_by - 1), self.seqlen) - 2
        hops = slice(None) if self._fixed is None else slice(self._fixed, self._fixed + 1)
        share = none[behind.clamp_min(0)][:, hops].mean().item()
        best = self.n_symbols if share > (1 - share) / self.n_symbols else 0
        return torch.full_like(inputs, best)
