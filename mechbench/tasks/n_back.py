"""N-back recall: which value did this key have the N-th last time?

One example with V = 8 (keys 0 to 3, values 4 to 7), L = 14 and n = 2:

    position       0  1  2  3  4  5  6  7  8  9 10 11 12
    inputs         2  5  0  7  2  4  2  6  0  4  2  7  2
    targets        .  .  .  .  .  .  .  .  .  .  .  .  6
    dense targets  .  .  .  .  .  .  5  .  .  .  4  .  6

A stream of pairs: uniform keys, each followed by a uniform new value. At a key that has had n
values before, the target is the n-th last of them, and not the value that comes next; with n = 1 it
is the latest. The stream ends with a key, which is uniform over those that have had n values, so
that an example is always scored. Streams with the same beginning ask the same there, so scoring
begins where the pairs have made 40 bits (four pairs by default); before stand dense targets only.
Source: Yang et al. 2025 (PaTH attention, arXiv:2505.16381), multi-query repeated associative recall
with N-back, with 32 keys and 768 tokens. What the source leaves open: the size of the vocabulary
(here as many values as keys) and the order of the keys (here uniform, so that how far back an
answer lies differs).
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
from mechbench.tasks.first_occurrence import first_occurrence
from mechbench.tasks.previous_occurrence import previous_occurrence
from mechbench.tasks.shortcuts import latest, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges
_APART_BITS = 40  # of a prefix, so that hardly any two examples share it


@register_task("n-back", source="Yang et al. 2025 (PaTH, arXiv:2505.16381)", measures="recall")
@dataclass(frozen=True)
class NBack(Task):
    """N-back recall: name the N-th last value of each key in a stream of pairs.

    Attributes:
        vocab_size: V: first the keys, then the values.
        seqlen: L, two tokens a pair; a model reads L - 1, all but the last value.
        n: which value to name: 1 is a key's latest, 2 the one before, and so on.
        n_keys: number of keys; 0: half of V, 32 at most.

    Raises:
        ConfigError: vocab_size below 4, n or n_keys out of range.
        SeqlenError: seqlen odd, or so short that no key need occur n + 1 times.
    """

    vocab_size: int
    seqlen: int
    n: int = 2
    n_keys: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 64, "seqlen": 768}

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: n-back needs at least 4 (two keys, two values)"
            )
        if self.n < 1:
            raise ConfigError(f"n is {self.n}: expected at least 1")
        if self.n_keys and not 2 <= self.n_keys <= self.vocab_size - 2:
            raise ConfigError(
                f"n_keys is {self.n_keys}: expected 2 to {self.vocab_size - 2} (vocab_size - 2), "
                "or 0 for half of them"
            )
        least = 2 * (self._n_keys * (self.n - 1) + 2)
        if self.seqlen < least or self.seqlen % 2:
            near = max(least, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: n-back with n {self.n} and {self._n_keys} keys needs "
                f"an even number of at least {least}; the nearest is {near}"
            )

    @property
    def _n_keys(self) -> int:
        return self.n_keys or min(32, self.vocab_size // 2)

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the pairs without the last value."""
        return self.seqlen - 1

    @property
    def apart_by(self) -> int:
        """Tokens of the pairs that make 40 bits, or all."""
        bits = math.log2(self._n_keys * (self.vocab_size - self._n_keys))
        return min(2 * math.ceil(_APART_BITS / bits), self.input_seqlen)

    @property
    def chance(self) -> float:
        """A uniform guess among the values."""
        return 1.0 / (self.vocab_size - self._n_keys)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent value, the latest, and other values of the key: its first, its latest.

        With n = 1 the latest is the answer and not among them.
        """
        low, high = self._n_keys, self.vocab_size
        rules: dict[str, Callable[[Tensor], Tensor]] = {
            "most frequent value": partial(most_frequent, low=low, high=high),
            "latest value": partial(latest, low=low, high=high),
            "first value of the key": self._first_of_key,
        }
        if self.n > 1:
            rules["latest value of the key"] = partial(self._nth_last, n=1)
        return rules

    @property
    def easiest_seqlen(self) -> int:
        """The power of two at which a key occurs 2 (n + 1) times or more; at least 64."""
        return max(64, 1 << (4 * self._n_keys * (self.n + 1) - 1).bit_length())

    def describe(self, token: int) -> str:
        """Return k1, k2, ... or v1, v2, ..."""
        K = self._n_keys
        return f"k{token + 1}" if token < K else f"v{token - K + 1}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L - 1) examples on the generator's device."""
        import torch

        B, P, K = batch_size, self.seqlen // 2, self._n_keys
        device = generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        keys, values = draw(0, K, B, P - 1), draw(K, self.vocab_size, B, P - 1)
        # The last key is uniform over those that have had n values: draw a rank among them.
        count = torch.zeros(B, K, dtype=torch.int64, device=device)
        count.scatter_add_(1, keys, torch.ones_like(keys))
        rank_of = (count >= self.n).cumsum(1)
        rank = draw(0, _RANGE, B, 1) % rank_of[:, -1:]  # bias below K / 2^24
        keys = torch.cat([keys, (rank_of <= rank).sum(1, keepdim=True)], 1)
        before = previous_occurrence(keys.to(torch.int32), self.n)
        answers = torch.where(before >= 0, values.gather(1, before.clamp_min(0)), IGNORE)
        inputs = torch.empty(B, 2 * P - 1, dtype=torch.int64, device=device)
        inputs[:, ::2], inputs[:, 1::2] = keys, values
        dense = torch.full_like(inputs, IGNORE)
        dense[:, ::2] = answers
        targets = dense.clone()
        targets[:, : self.apart_by - 1] = IGNORE
        return Batch(inputs, targets, dense)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Read the value behind the n-th last earlier place of each visible key."""
        return self._nth_last(inputs, self.n)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the value that the window begins with, where one more value of the key is hidden.

        Its own key is hidden, and may be the one asked for.
        """
        import torch

        if inputs.shape[1] % 2:
            return torch.full_like(at, UNKNOWN)
        shown = (inputs[:, 1:-1:2] == inputs[:, -1:]).sum(1)
        return torch.where(shown == self.n - 1, inputs[:, 0], UNKNOWN)

    def _nth_last(self, inputs: Tensor, n: int) -> Tensor:
        import torch

        begin = (inputs.shape[1] - 1) % 2  # a window that ends with a key may begin with a value
        keys = inputs[:, begin::2]
        before = previous_occurrence(keys, n)
        value = inputs.gather(1, begin + 2 * before.clamp_min(0) + 1) if keys.shape[1] > 1 else keys
        answers = torch.full_like(inputs, UNKNOWN)
        answers[:, begin::2] = torch.where(before >= 0, value, UNKNOWN)
        return answers

    def _first_of_key(self, inputs: Tensor) -> Tensor:
        import torch

        first = first_occurrence(inputs[:, ::2])
        answers = torch.full_like(inputs, UNKNOWN)
        answers[:, ::2] = inputs.gather(1, (2 * first + 1).clamp_max(inputs.shape[1] - 1))
        return answers
