"""Needles: find a few keys in a haystack and name what stands behind them.

One example with V = 9 (keys 0 to 3, values 4 to 7, `=>` = 8), L = 11, n_needles = 2, n_queries = 2:

    position   0  1  2  3  4  5  6  7  8  9 10 11 12 13
    inputs     5  7  2  4  4  6  5  0  6  7  4 =>  0  2
    targets    .  .  .  .  .  .  .  .  .  .  .  .  6  4

The haystack is L uniform values. n_needles distinct keys, uniform ones, replace some of them, at
places that are uniform among those where each key has a value behind it; that is its value. So a
needle differs from the hay by its key alone. Behind `=>` stand n_queries of the keys, uniform ones
in uniform order, and the target stands at the query itself, as in `mqar`. Source: Hsieh et al. 2024
(RULER, arXiv:2404.06654), section 3, the tasks of needles in a haystack, here at the level of
tokens: their keys, values and hay are words, numbers and sentences. Several needles and one query
is their "multi-keys", several queries "multi-queries". Left open there at this level, and chosen
here: hay is made of the tokens that are values, so that a value alone is no sign of a needle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch
from mechbench.tasks.distinct import draw_distinct
from mechbench.tasks.halves import Halves
from mechbench.tasks.shortcuts import most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "needle", source="Hsieh et al. 2024 (RULER, arXiv:2404.06654), section 3", measures="recall"
)
@dataclass(frozen=True)
class Needle(Halves):
    """Needles: name the value behind a key that stands somewhere in a haystack.

    Attributes:
        vocab_size: V: `=>` (V-1), and V-1 keys and values, the first half keys.
        seqlen: L, tokens of the haystack; a model reads L + 1 + n_queries.
        n_needles: keys in the haystack.
        n_queries: how many of them are asked for.

    Raises:
        ConfigError: vocab_size below 5, n_needles or n_queries out of range.
        SeqlenError: seqlen below 2 n_needles.
    """

    vocab_size: int
    seqlen: int
    n_needles: int = 4
    n_queries: int = 1

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 64, "seqlen": 256}
    leading: ClassVar[tuple[str, ...]] = ()
    closing: ClassVar[str] = "=>"

    def __post_init__(self) -> None:
        if self.n_needles < 1:
            raise ConfigError(f"n_needles is {self.n_needles}: expected at least 1")
        fewest = max(5, 2 * self.n_needles + 1)
        if self.vocab_size < fewest:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: {self.n_needles} needles need at least {fewest}"
            )
        if not 1 <= self.n_queries <= self.n_needles:
            raise ConfigError(
                f"n_queries is {self.n_queries}: expected 1 to n_needles ({self.n_needles})"
            )
        if self.seqlen < 2 * self.n_needles:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: {self.n_needles} needles need at least "
                f"{2 * self.n_needles}"
            )

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the haystack, `=>` and the queries."""
        return self.seqlen + 1 + self.n_queries

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent value, the last one, and that of the first and the last needle."""
        low, high = self.n_keys, self.vocab_size - 1
        return {
            "most frequent value": partial(most_frequent, low=low, high=high),
            "last value": lambda x: x[:, self.seqlen - 1 : self.seqlen].expand_as(x),
            "value of the first needle": partial(self._of_needle, last=False),
            "value of the last needle": partial(self._of_needle, last=True),
        }

    @property
    def easiest_seqlen(self) -> int:
        """The power of two that gives each needle four times its room or more; at least 32."""
        return max(32, 1 << (8 * self.n_needles - 1).bit_length())

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + 1 + n_queries) examples on the generator's device."""
        import torch

        B, L, n, K = batch_size, self.seqlen, self.n_needles, self.n_keys
        device = generator.device
        inputs = torch.randint(
            K, self.vocab_size - 1, (B, self.input_seqlen), generator=generator, device=device
        )
        keys = draw_distinct(B, n, K, generator)
        # n places with a gap of two at least: n of L - n, each moved by those before it.
        at = draw_distinct(B, n, L - n, generator).sort(1).values
        at += torch.arange(n, device=device)
        inputs.scatter_(1, at, keys)
        inputs[:, L] = self.vocab_size - 1
        which = draw_distinct(B, self.n_queries, n, generator)
        inputs[:, L + 1 :] = keys.gather(1, which)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, L + 1 :] = inputs.gather(1, at.gather(1, which) + 1)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Look up every query among the keys that are visible before the `=>`."""
        import torch

        B, K = len(inputs), self.n_keys
        asking = (inputs == self.vocab_size - 1).cumsum(1) > 0
        is_key = inputs < K
        value_of = torch.full((B, K + 1), UNKNOWN, device=inputs.device)
        source = torch.where(is_key & ~asking, inputs, K)[:, :-1]
        value_of.scatter_(1, source, inputs[:, 1:])  # each key at most once; all the rest at K
        value_of[:, K] = UNKNOWN
        return value_of.gather(1, torch.where(is_key & asking, inputs, K))

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the value that the window begins with: the hidden token before it may be the key."""
        import torch

        begin = at + 1 - inputs.shape[1]
        value = (inputs[:, 0] >= self.n_keys) & (begin > 0) & (begin < self.seqlen)
        return torch.where(value, inputs[:, 0], UNKNOWN)

    def _of_needle(self, inputs: Tensor, last: bool) -> Tensor:
        is_key = (inputs[:, : self.seqlen] < self.n_keys).int()
        at = self.seqlen - 1 - is_key.flip(1).argmax(1) if last else is_key.argmax(1)
        return inputs.gather(1, at[:, None] + 1).expand_as(inputs)
