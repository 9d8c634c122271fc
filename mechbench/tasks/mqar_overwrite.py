"""MQAR with overwriting: some keys get another value, and the latest one counts.

One example with V = 16 (filler `.` = 0, keys 1 to 7, values 8 to 15), L = 18, n_pairs = 3 and
n_updates = 1:

    position   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17
    inputs     2  8  4 11  7  9  4 14  .  .  4  .  2  .  .  .  7  .
    targets    .  .  .  .  .  .  .  .  .  . 14  .  8  .  .  .  9  .

As in `mqar`, n_pairs keys stand with their values; then n_updates of these keys, uniform ones in
uniform order, with new values; then one query of each of the n_pairs keys at an even offset
2 (i - 1) behind the last pair, drawn without replacement, with probability proportional to
i^(power - 1). All values of an example differ, so that no old value is right by accident. The
target stands at the query itself, as in `mqar`. Source: Arora et al. 2023 (Zoology), section 3, and
`forgetting_mqar` in what they released, which has 8 pairs and 4 updates. There new values differ
only from the old one of the same key, and random filler may look like a query that is not scored;
here filler holds no keys.
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
from mechbench.tasks.previous_occurrence import previous_occurrence
from mechbench.tasks.query_places import check_power, draw_places
from mechbench.tasks.shortcuts import latest, most_frequent
from mechbench.tasks.unseen import least_unseen

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "mqar-overwrite",
    source="Arora et al. 2023 (Zoology), section 3, forgetting_mqar of the release",
    measures="recall",
)
@dataclass(frozen=True)
class MqarOverwrite(Task):
    """MQAR with overwriting: name the latest value of every key when it occurs again.

    Attributes:
        vocab_size: V: `.` (0), keys 1 to V/2 - 1, the rest values.
        seqlen: L, tokens of an example: pairs, queries and filler.
        n_pairs: keys, each queried once.
        n_updates: keys that get a second value.
        power: exponent of the distribution of gaps, see `mqar`.
        random_filler: fill the gaps with random tokens that are not keys, instead of `.`.

    Raises:
        ConfigError: n_pairs, n_updates or power out of range, or too few values.
        SeqlenError: seqlen odd or below 4 n_pairs + 2 n_updates.
    """

    vocab_size: int
    seqlen: int
    n_pairs: int = 4
    n_updates: int = 2
    power: float = 0.01
    random_filler: bool = False

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 256, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.n_pairs < 1:
            raise ConfigError(f"n_pairs is {self.n_pairs}: expected at least 1")
        if not 0 <= self.n_updates <= self.n_pairs:
            raise ConfigError(
                f"n_updates is {self.n_updates}: expected 0 to n_pairs ({self.n_pairs})"
            )
        check_power(self.power)
        fewest = max(2 * self.n_pairs + 2, 2 * self._n_stored - 1)
        if self.vocab_size < fewest:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: mqar-overwrite with {self.n_pairs} pairs and "
                f"{self.n_updates} updates needs at least {fewest}"
            )
        least = 4 * self.n_pairs + 2 * self.n_updates
        if self.seqlen % 2 or self.seqlen < least:
            near = max(least, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: mqar-overwrite with {self.n_pairs} pairs and "
                f"{self.n_updates} updates needs an even number of at least {least}; "
                f"the nearest is {near}"
            )

    @property
    def _first_value(self) -> int:
        return self.vocab_size // 2

    @property
    def _n_stored(self) -> int:
        return self.n_pairs + self.n_updates

    @property
    def chance(self) -> float:
        """A uniform guess among the values: 2 / V for even V."""
        return 1.0 / (self.vocab_size - self._first_value)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """A key's first value, values in order, the first, the latest and the most frequent value.

        A key's first value is right for those that are not updated. "In order" answers the n-th
        query with the n-th pair's value: keys are often queried in the order of the pairs.
        """
        low, high = self._first_value, self.vocab_size
        return {
            "first value of the key": self._first_of_key,
            "values in order": self._in_order,
            "first value": lambda inputs: inputs[:, 1:2].expand_as(inputs),
            "latest value": partial(latest, low=low, high=high),
            "most frequent value": partial(most_frequent, low=low, high=high),
        }

    def describe(self, token: int) -> str:
        """Return `.`, k1, k2, ... or v1, v2, ..."""
        first = self._first_value
        return "." if token == 0 else f"k{token}" if token < first else f"v{token - first + 1}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, n, first = batch_size, self.seqlen, self.n_pairs, self._first_value
        end, device = 2 * self._n_stored, generator.device
        keys = 1 + draw_distinct(B, n, first - 1, generator)
        values = first + draw_distinct(B, self._n_stored, self.vocab_size - first, generator)
        which = draw_distinct(B, self.n_updates, n, generator)
        inputs = torch.zeros(B, L, dtype=torch.int64, device=device)
        if self.random_filler:
            n_filler = self.vocab_size - first + 1
            inputs = torch.randint(n_filler, (B, L), generator=generator, device=device)
            inputs += (inputs > 0) * (first - 1)
        inputs[:, 0:end:2] = torch.cat([keys, keys.gather(1, which)], 1)
        inputs[:, 1:end:2] = values
        answers = values[:, :n].scatter(1, which, values[:, n:])
        at = end + 2 * draw_places(B, n, (L - end) // 2, self.power, generator)
        inputs.scatter_(1, at, keys)
        targets = torch.full_like(inputs, IGNORE).scatter_(1, at, answers)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Read what followed a key where it last occurred before: it is queried once, at the end.

        A window that shows a value of a key shows the later one too, if there is any.
        """
        import torch

        before = previous_occurrence(self._ids(inputs))
        answers = inputs.gather(1, (before + 1).clamp_min(0))
        known = (before >= 0) & (answers >= self._first_value)
        return torch.where(known, answers, UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the value that the window begins with, else one that no visible pair has.

        The former is the likeliest: its hidden key is one of those that were stored, and there are
        at least as many values.
        """
        import torch

        n = self._n_stored
        begin = at + 1 - inputs.shape[1]
        inputs = inputs[:, : 2 * n]  # what comes after cannot be in a pair
        column = begin[:, None] + torch.arange(inputs.shape[1], device=at.device)
        in_pair = (column < 2 * n) & (column % 2 == 1)
        seen = torch.where(in_pair, inputs, UNKNOWN)
        other = least_unseen(seen, self._first_value, self.vocab_size)
        return torch.where(in_pair[:, 0], inputs[:, 0], other)

    def _ids(self, inputs: Tensor) -> Tensor:
        """Return (B, L): keys, and for every other token a number of its own."""
        import torch

        own = -1 - torch.arange(inputs.shape[1], device=inputs.device)
        return torch.where((inputs > 0) & (inputs < self._first_value), inputs, own)

    def _first_of_key(self, inputs: Tensor) -> Tensor:
        first = first_occurrence(self._ids(inputs))
        return inputs.gather(1, (first + 1).clamp_max(self.seqlen - 1))

    def _in_order(self, inputs: Tensor) -> Tensor:
        n = self.n_pairs
        is_key = (inputs > 0) & (inputs < self._first_value)
        number = (is_key.cumsum(1) - self._n_stored - 1).clamp(0, n - 1)  # of the latest query
        return inputs.gather(1, 2 * number + 1)
