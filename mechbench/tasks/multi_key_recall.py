"""Multi-key recall: associative recall where several tokens together form the key.

One example with V = 8 (key tokens 1 2 3, values 4 5 6, `.` = 0, `=>` = 7), L = 12 and key_len = 2:

    position       0  1  2  3  4  5  6  7  8  9 10 11 12 13 14
    inputs         2  3  5  1  2  4  2  3  5  3  3  6  => 1  2
    targets        .  .  .  .  .  .  .  .  .  .  .  .  .  .  4
    dense targets  .  .  .  .  .  .  .  5  .  .  .  .  .  .  4

Each example draws its own map from all key tuples to values (with replacement). Then come
L / (key_len + 1) uniform tuples with their values, `=>`, and a query uniform over the distinct
tuples that occurred. With key_len 1 this is the task `recall`. Source: option `num_keys` of the
synthetics released with Poli et al. 2023 (Hyena), section 4.1 (`allow_dot` false).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch
from mechbench.tasks.first_occurrence import first_occurrence
from mechbench.tasks.halves import Halves
from mechbench.tasks.shortcuts import last_of_key, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges


@register_task(
    "multi-key-recall", source="Poli et al. 2023 (Hyena), section 4.1, num_keys", measures="recall"
)
@dataclass(frozen=True)
class MultiKeyRecall(Halves):
    """Multi-key recall: name the value that followed the queried tuple of keys.

    Attributes:
        vocab_size: V: two specials (`.` 0 and `=>` V-1) and V-2 numbers, the first half key tokens.
        seqlen: L, tokens in the key-value part; a model reads L + 1 + key_len.
        key_len: tokens in a key.

    Raises:
        ConfigError: vocab_size below 4, or key_len out of range.
        SeqlenError: seqlen not a multiple of key_len + 1.
    """

    vocab_size: int
    seqlen: int
    key_len: int = 2

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 10, "seqlen": 96}
    leading: ClassVar[tuple[str, ...]] = (".",)
    closing: ClassVar[str] = "=>"

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: multi-key-recall needs at least 4 "
                "(two specials, one key token, one value)"
            )
        if not 1 <= self.key_len <= 4:
            raise ConfigError(f"key_len is {self.key_len}: expected 1 to 4")
        size = self.key_len + 1
        if self.seqlen < size or self.seqlen % size:
            near = max(size, round(self.seqlen / size) * size)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: multi-key-recall with key_len {self.key_len} needs a "
                f"multiple of {size}; the nearest is {near}"
            )

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the pairs, `=>` and the queried tuple."""
        return self.seqlen + 1 + self.key_len

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent value, the last one, and that of the last key with the same ending."""
        return {
            "most frequent value": self._most_frequent,
            "last value": lambda inputs: inputs[:, self.seqlen - 1, None].expand_as(inputs),
            **{
                last_of_key(part): partial(self._last_tokens, part=part)
                for part in range(1, self.key_len)
            },
        }

    @property
    def easiest_seqlen(self) -> int:
        """Length at which each tuple occurs about twice; at least 32 tuples."""
        n_tuples = int(self.n_keys**self.key_len)
        return max(32, 2 * n_tuples) * (self.key_len + 1)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + 1 + key_len) examples on the generator's device."""
        import torch

        B, k, K = batch_size, self.key_len, self.n_keys
        P, L = self.seqlen // (k + 1), self.seqlen
        device = generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        keys = draw(1, K + 1, B, P, k)
        first = first_occurrence(self._number(keys))  # (B, P)
        values = draw(K + 1, self.vocab_size - 1, B, P).gather(1, first)
        again = first < torch.arange(P, device=device)
        # The query is uniform over the distinct tuples that occurred: draw a rank among them.
        rank_of = (~again).cumsum(1)
        rank = draw(0, _RANGE, B, 1) % rank_of[:, -1:]  # bias below P / 2^24
        query = (rank_of <= rank).sum(1, keepdim=True)  # (B, 1), a pair's index

        inputs = torch.empty(B, self.input_seqlen, dtype=torch.int64, device=device)
        pairs = inputs[:, :L].view(B, P, k + 1)
        pairs[..., :k], pairs[..., k] = keys, values
        inputs[:, L] = self.vocab_size - 1
        inputs[:, L + 1 :] = keys.gather(1, query[..., None].expand(B, 1, k))[:, 0]
        targets = torch.full_like(inputs, IGNORE)
        targets[:, -1:] = values.gather(1, query)
        dense = targets.clone()
        dense[:, k - 1 : L : k + 1] = torch.where(again, values, IGNORE)
        return Batch(inputs, targets, dense)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Look up every tuple in the earlier visible pairs."""
        import torch

        B, length = inputs.shape
        k = self.key_len
        answers = torch.full_like(inputs, UNKNOWN)
        P = (length - 1 - k) // (k + 1)
        if P < 1:
            return answers
        begin = length - 1 - k - P * (k + 1)
        pairs = inputs[:, begin : length - 1 - k].reshape(B, P, k + 1)
        keys = torch.cat([pairs[..., :k], inputs[:, None, -k:]], 1)  # (B, P + 1, k)
        first = first_occurrence(self._number(keys))
        values = pairs[..., k].gather(1, first.clamp_max(P - 1))  # (B, P + 1)
        values = torch.where(first < torch.arange(P + 1, device=inputs.device), values, UNKNOWN)
        answers[:, begin + k - 1 : length - 1 - k : k + 1] = values[:, :P]
        answers[:, -1] = values[:, P]
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the value of the pair cut by the window, if what is left of its key fits."""
        import torch

        left = (inputs.shape[1] - 1 - self.key_len) % (self.key_len + 1)  # left of the cut pair
        if not left:
            return torch.full_like(at, UNKNOWN)
        query = inputs[:, inputs.shape[1] - left + 1 :]
        fits = (inputs[:, : left - 1] == query).all(1)
        return torch.where(fits, inputs[:, left - 1], UNKNOWN)

    def _number(self, keys: Tensor) -> Tensor:
        """Return (B, P): one number for each tuple, given as (B, P, key_len) tokens."""
        import torch

        radix = self.vocab_size ** torch.arange(self.key_len, device=keys.device)
        return (keys * radix).sum(2)

    def _most_frequent(self, inputs: Tensor) -> Tensor:
        return most_frequent(inputs, self.n_keys + 1, self.vocab_size - 1)

    def _last_tokens(self, inputs: Tensor, part: int) -> Tensor:
        pairs = inputs[:, : self.seqlen].reshape(len(inputs), -1, self.key_len + 1)
        same = (pairs[..., -1 - part : -1] == inputs[:, None, -part:]).all(
            2
        )  # the queried tuple is
        latest = pairs.shape[1] - 1 - same.flip(1).int().argmax(1, keepdim=True)
        guess: Tensor = pairs[..., -1].gather(1, latest)
        return guess.expand_as(inputs)
