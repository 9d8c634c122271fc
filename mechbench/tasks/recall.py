"""Associative recall: which value followed this key?

One example with V = 8 (keys 1 2 3, values 4 5 6, `.` = 0, `=>` = 7) and L = 8:

    position       0  1  2  3  4  5  6  7  8  9
    inputs         2  5  1  4  2  5  3  4  => 1
    targets        .  .  .  .  .  .  .  .  .  4
    dense targets  .  .  .  .  5  .  .  .  .  4

Each example draws its own key-to-value map (values with replacement). It consists of L/2 pairs with
uniform keys, `=>`, and a query uniform over the distinct keys that occurred. Source: Poli et al.
2023, section 4.1, exactly as in the released synthetics (one key token, `allow_dot` false).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch
from mechbench.tasks.halves import Halves

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Largest range for torch.randint: the stream for larger ranges changed between releases.
_RANGE = 1 << 24


@register_task("recall", source="Poli et al. 2023 (Hyena), section 4.1", measures="recall")
@dataclass(frozen=True)
class Recall(Halves):
    """Associative recall: name the value that followed the queried key.

    Attributes:
        vocab_size: V: two specials (`.` 0 and `=>` V-1) and V-2 numbers, the first half keys.
        seqlen: L, tokens in the key-value part; a model reads L + 2 tokens.
        min_distance: fewest tokens from the queried key's last occurrence to the query. The
            published task has 0; near L it tests memory (later pairs never hold the queried key).

    Raises:
        ConfigError: vocab_size below 4, or min_distance out of range.
        SeqlenError: seqlen odd or below 2.
    """

    vocab_size: int
    seqlen: int
    min_distance: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 20, "seqlen": 64}
    leading: ClassVar[tuple[str, ...]] = (".",)
    closing: ClassVar[str] = "=>"

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: recall needs at least 4 "
                "(two specials, one key, one value)"
            )
        if self.seqlen < 2 or self.seqlen % 2:
            near = max(2, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: recall needs an even number of at least 2 "
                f"(key-value pairs); the nearest is {near}"
            )
        if not 0 <= self.min_distance <= self.seqlen + 1:
            raise ConfigError(
                f"min_distance is {self.min_distance}: expected 0 to {self.seqlen + 1} "
                f"(seqlen + 1) at seqlen {self.seqlen}"
            )
        if self.n_keys == 1 and self._n_early < self.seqlen // 2:
            raise ConfigError(
                f"min_distance is {self.min_distance}: it leaves the queried key out of later "
                "pairs, so it needs two keys or more: vocab_size of at least 6"
            )

    @property
    def _n_early(self) -> int:
        """Number of pairs far enough from the query to hold its key (pair i has its key at 2i)."""
        return min(self.seqlen // 2, (self.seqlen + 1 - self.min_distance) // 2 + 1)

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the pairs, `=>` and the query."""
        return self.seqlen + 2

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent, last and first value, and the same among pairs far enough back."""
        last = 2 * self._n_early - 1  # the last value that may be asked for
        far = {
            "most frequent far value": lambda inputs: self._most_frequent(inputs, last),
            "last far value": lambda inputs: inputs[:, last, None].expand_as(inputs),
        }
        return {
            "most frequent value": self._most_frequent,
            "last value": lambda inputs: inputs[:, -3:-2].expand_as(inputs),
            "first value": lambda inputs: inputs[:, 1:2].expand_as(inputs),
            **(far if 2 * self._n_early < self.seqlen else {}),
        }

    @property
    def easiest_seqlen(self) -> int:
        """The power of two at which each key occurs about four times or more; at least 64."""
        return max(64, 1 << (8 * self.n_keys - 1).bit_length())

    def easier(self, seqlen: int) -> Recall:
        """Return the task at a shorter length; min_distance shrinks with it."""
        distance = self.min_distance * seqlen // self.seqlen
        return dataclasses.replace(self, seqlen=seqlen, min_distance=distance)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + 2) examples on the generator's device."""
        import torch

        B, P, K, E = batch_size, self.seqlen // 2, self.n_keys, self._n_early
        device = generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        value_of = draw(K + 1, self.vocab_size - 1, B, K)
        keys = draw(0, K, B, E)
        # The query is uniform over the distinct keys that occurred: draw a rank among them.
        seen = torch.zeros(B, K, dtype=torch.bool, device=device).scatter_(1, keys, True)
        rank_of = seen.cumsum(1)
        rank = draw(0, _RANGE, B, 1) % rank_of[:, -1:]  # bias below K / 2^24
        query = (rank_of <= rank).sum(1, keepdim=True)  # (B, 1)
        if E < P:  # later keys are uniform over the others
            late = draw(0, K - 1, B, P - E)
            keys = torch.cat([keys, late + (late >= query)], 1)  # (B, P)
        values = value_of.gather(1, keys)
        answer = value_of.gather(1, query)

        inputs = torch.empty(B, self.input_seqlen, dtype=torch.int64, device=device)
        inputs[:, 0 : 2 * P : 2] = keys + 1
        inputs[:, 1 : 2 * P : 2] = values
        inputs[:, -2] = self.vocab_size - 1
        inputs[:, -1:] = query + 1
        targets = torch.full_like(inputs, IGNORE)
        targets[:, -1:] = answer
        # A pair's value is predictable from its key if that key stood in an earlier pair.
        index = torch.arange(P, device=device).expand(B, P)
        first = torch.full((B, K), P, device=device).scatter_reduce_(1, keys, index, "amin")
        dense = targets.clone()
        dense[:, 0 : 2 * P : 2] = torch.where(index > first.gather(1, keys), values, IGNORE)
        return Batch(inputs, targets, dense)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Look up every key in the visible pairs."""
        import torch

        B, length = inputs.shape
        K, P = self.n_keys, (length - 2) // 2
        answers = torch.full_like(inputs, UNKNOWN)
        if P < 1:
            return answers
        pairs = inputs[:, length - 2 - 2 * P : length - 2].view(B, P, 2)
        keys = pairs[..., 0] - 1
        value_of = torch.full((B, K), UNKNOWN, device=inputs.device)
        value_of.scatter_(1, keys, pairs[..., 1])  # equal keys write equal values
        answers[:, length - 2 - 2 * P : length - 2 : 2] = value_of.gather(1, keys)
        answers[:, -1:] = value_of.gather(1, inputs[:, -1:] - 1)
        return answers

    def _most_frequent(self, inputs: Tensor, last: int = -3) -> Tensor:
        import torch

        values = inputs[:, 1:-2:2] if last < 0 else inputs[:, 1 : last + 1 : 2]
        counts = torch.zeros(len(inputs), self.vocab_size, device=inputs.device)
        counts.scatter_add_(1, values, torch.ones_like(values, dtype=counts.dtype))
        return counts.argmax(1, keepdim=True).expand_as(inputs)
