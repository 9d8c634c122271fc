"""Multi-query associative recall: many keys, each asked for once.

One example with V = 12 (filler `.` = 0, keys 1 to 5, values 6 to 11), L = 16 and n_pairs = 2:

    position   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
    inputs     2  8  4  7  .  .  4  .  .  .  .  .  2  .  .  .
    targets    .  .  .  .  .  .  7  .  .  .  .  .  8  .  .  .

n_pairs keys and values, both drawn without replacement, then one query of each key at an even
offset 2 (i - 1) after the pairs; offsets are drawn without replacement, with probability
proportional to i^(power - 1). The target stands at the query itself. Source: Arora et al. 2023
(Zoology), section 3 and appendix; the grid is (seqlen, n_pairs) = (64, 4), (128, 8), (256, 16),
(512, 64) with V = 8192.

Deviation: random filler is drawn from the tokens that are not keys. The release draws it from all
tokens, so that some filler looks like a query but is not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.distinct import draw_distinct
from mechbench.tasks.first_occurrence import first_occurrence
from mechbench.tasks.query_places import check_power, draw_places
from mechbench.tasks.shortcuts import latest, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task("mqar", source="Arora et al. 2023 (Zoology), section 3", measures="recall")
@dataclass(frozen=True)
class Mqar(Task):
    """Multi-query associative recall: name the value of every key when it occurs again.

    Attributes:
        vocab_size: V: `.` (0), keys 1 to V/2 - 1, the rest values; the published size is 8192.
        seqlen: L, tokens of an example: pairs, queries and filler.
        n_pairs: key-value pairs, each queried once.
        power: exponent of the distribution of gaps; the published 0.01 puts most queries close
            behind the pairs, 1 spreads them evenly.
        random_filler: fill the gaps with random tokens that are not keys, instead of `.`.

    Raises:
        ConfigError: n_pairs or power out of range, or too few keys.
        SeqlenError: seqlen odd or below 4 n_pairs.
    """

    vocab_size: int
    seqlen: int
    n_pairs: int = 4
    power: float = 0.01
    random_filler: bool = False

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 256, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.n_pairs < 1:
            raise ConfigError(f"n_pairs is {self.n_pairs}: expected at least 1")
        check_power(self.power)
        if self.n_pairs >= self.vocab_size // 2:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: mqar with {self.n_pairs} pairs needs at least "
                f"{2 * self.n_pairs + 2}"
            )
        if self.seqlen % 2 or self.seqlen < 4 * self.n_pairs:
            near = max(4 * self.n_pairs, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: mqar with {self.n_pairs} pairs needs an even number of "
                f"at least {4 * self.n_pairs}; the nearest is {near}"
            )

    @property
    def _first_value(self) -> int:
        return self.vocab_size // 2

    @property
    def chance(self) -> float:
        """A uniform guess among the values: 2 / V for even V."""
        return 1.0 / (self.vocab_size - self._first_value)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The first value (right once in n_pairs), values in order, the latest, the most frequent.

        "In order" answers the n-th query with the n-th pair's value: keys are often queried in the
        order of the pairs.
        """
        low, high = self._first_value, self.vocab_size
        return {
            "first value": lambda inputs: inputs[:, 1:2].expand_as(inputs),
            "values in order": self._in_order,
            "latest value": partial(latest, low=low, high=high),
            "most frequent value": partial(most_frequent, low=low, high=high),
        }

    def describe(self, token: int) -> str:
        """Return `.`, k1, k2, ... or v1, v2, ..."""
        if token == 0:
            return "."
        first = self._first_value
        return f"k{token}" if token < first else f"v{token - first + 1}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, n, first = batch_size, self.seqlen, self.n_pairs, self._first_value
        device = generator.device
        keys = 1 + draw_distinct(B, n, first - 1, generator)
        values = first + draw_distinct(B, n, self.vocab_size - first, generator)
        inputs = torch.zeros(B, L, dtype=torch.int64, device=device)
        if self.random_filler:
            n_filler = self.vocab_size - first + 1
            inputs = torch.randint(n_filler, (B, L), generator=generator, device=device)
            inputs += (inputs > 0) * (first - 1)
        inputs[:, 0 : 2 * n : 2], inputs[:, 1 : 2 * n : 2] = keys, values
        at = 2 * (n + draw_places(B, n, L // 2 - n, self.power, generator))
        inputs.scatter_(1, at, keys)
        targets = torch.full_like(inputs, IGNORE).scatter_(1, at, values)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Read what followed a key where it first occurred."""
        import torch

        is_key = (inputs > 0) & (inputs < self._first_value)
        answers = torch.full_like(inputs, UNKNOWN)
        row, column = is_key.nonzero(as_tuple=True)
        # Keys are few: sort only them, (B, most keys in a row), a row's n-th key in column n.
        count = torch.bincount(row, minlength=len(inputs))
        nth = torch.arange(len(row), device=inputs.device) - (count.cumsum(0) - count)[row]
        width = int(count.max())
        where = torch.zeros(len(inputs), width, dtype=torch.int64, device=inputs.device)
        where[row, nth] = column
        keys = -1 - torch.arange(width, device=inputs.device).repeat(len(inputs), 1)
        keys[row, nth] = inputs[row, column]
        first = first_occurrence(keys)[row, nth]
        known = first < nth
        row, column, first = row[known], column[known], first[known]
        answers[row, column] = inputs[row, where[row, first] + 1]
        return answers

    def _in_order(self, inputs: Tensor) -> Tensor:
        n = self.n_pairs
        is_key = (inputs > 0) & (inputs < self._first_value)
        number = (is_key.cumsum(1) - n - 1).clamp(0, n - 1)  # index of the latest query
        return inputs.gather(1, 2 * number + 1)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the value that the window begins with, else one that no visible pair has.

        The former is the likeliest: its hidden key is one of at most n_pairs, and there are more
        values than that. (With many pairs and power below 1, another value may be likelier, by less
        than its 2 / V.)
        """
        import torch

        n, begin = self.n_pairs, at + 1 - inputs.shape[1]
        inputs = inputs[:, : 2 * n]  # what comes after cannot be in a pair
        column = begin[:, None] + torch.arange(inputs.shape[1], device=at.device)
        in_pair = (column < 2 * n) & (column % 2 == 1)
        # At least one of the first n + 1 values is in no pair.
        value = torch.where(in_pair, inputs - self._first_value, n + 1).clamp_max(n + 1)
        taken = torch.zeros(len(inputs), n + 2, dtype=torch.int8, device=at.device)
        taken.scatter_(1, value, 1)
        other = self._first_value + taken[:, : n + 1].argmin(1)
        return torch.where(in_pair[:, 0], inputs[:, 0], other)
