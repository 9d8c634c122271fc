"""Compositional MQAR: a value belongs to two keys together, and to neither of them alone.

One example with V = 13 (filler `.` = 0, first keys 1 to 4, second keys 5 to 8, values 9 to 12),
L = 24 and grid = 2:

    position   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23
    inputs     1  5 12  3  8  9  1  8 11  3  5 10  1  8  .  3  5  .  3  8  .  1  5  .
    targets    .  .  .  .  .  .  .  .  .  .  .  .  . 11  .  . 10  .  .  9  .  . 12  .

An example draws `grid` first keys, `grid` second keys and grid^2 values, each without replacement.
Every first key stands once with every second key, in uniform order, and their value behind them.
Then each of these pairs of keys is queried once, at an offset of 3 (i - 1) behind the last value,
drawn without replacement, with probability proportional to i^(power - 1). The target stands at the
second key. So the first key alone leaves `grid` values to choose from, and so does the second.
Source: Arora et al. 2023 (Zoology), section 3, and `compositional_mqar` in what they released; its
random filler may look like a key, here filler holds no keys.
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
from mechbench.tasks.previous_occurrence import previous_occurrence
from mechbench.tasks.query_places import check_power, draw_places
from mechbench.tasks.shortcuts import latest, most_frequent
from mechbench.tasks.unseen import least_unseen

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "mqar-compositional",
    source="Arora et al. 2023 (Zoology), section 3, compositional_mqar of the release",
    measures="recall",
)
@dataclass(frozen=True)
class MqarCompositional(Task):
    """Compositional MQAR: name the value of every pair of keys when it occurs again.

    Attributes:
        vocab_size: V: `.` (0), then a third of the rest each: first keys, second keys, values.
        seqlen: L, tokens of an example: the grid, queries and filler.
        grid: first keys of an example, and second keys; their grid^2 pairs are each queried once.
        power: exponent of the distribution of gaps, see `mqar`.
        random_filler: fill the gaps with random tokens that are not keys, instead of `.`.

    Raises:
        ConfigError: grid or power out of range, or too few values.
        SeqlenError: seqlen below 6 grid^2 - 1.
    """

    vocab_size: int
    seqlen: int
    grid: int = 2
    power: float = 0.01
    random_filler: bool = False

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 256, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise ConfigError(f"grid is {self.grid}: expected at least 2")
        check_power(self.power)
        if self.vocab_size < 3 * self._n_pairs - 1:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: mqar-compositional with grid {self.grid} needs "
                f"at least {3 * self._n_pairs - 1}"
            )
        if self.seqlen < 6 * self._n_pairs - 1:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: mqar-compositional with grid {self.grid} needs at "
                f"least {6 * self._n_pairs - 1}"
            )

    @property
    def _n_pairs(self) -> int:
        return self.grid**2

    @property
    def _first_value(self) -> int:
        return self.vocab_size - (self.vocab_size + 1) // 3

    @property
    def _second_key(self) -> int:
        """The first one of the tokens that are second keys."""
        return 1 + (self._first_value - 1) // 2

    @property
    def chance(self) -> float:
        """A uniform guess among the values: about 3 / V."""
        return 1.0 / (self.vocab_size - self._first_value)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The latest value of either key alone, values in order, the latest and the most frequent.

        "In order" answers the n-th query with the n-th pair's value: pairs of keys are often
        queried in the order in which they stood.
        """
        low, high = self._first_value, self.vocab_size
        return {
            "latest value of the first key": partial(self._of_one, behind=2),
            "latest value of the second key": partial(self._of_one, behind=1),
            "values in order": self._in_order,
            "latest value": partial(latest, low=low, high=high),
            "most frequent value": partial(most_frequent, low=low, high=high),
        }

    def describe(self, token: int) -> str:
        """Return `.`, a1, a2, ... (first keys), b1, b2, ... (second keys) or v1, v2, ..."""
        for kind, low in (("v", self._first_value), ("b", self._second_key), ("a", 1)):
            if token >= low:
                return f"{kind}{token - low + 1}"
        return "."

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, n = batch_size, self.seqlen, self._n_pairs
        first, second, device = self._first_value, self._second_key, generator.device
        firsts = 1 + draw_distinct(B, self.grid, second - 1, generator)
        seconds = second + draw_distinct(B, self.grid, first - second, generator)
        values = first + draw_distinct(B, n, self.vocab_size - first, generator)
        order = draw_distinct(B, n, n, generator)
        keys = firsts.gather(1, order // self.grid), seconds.gather(1, order % self.grid)
        inputs = torch.zeros(B, L, dtype=torch.int64, device=device)
        if self.random_filler:
            n_filler = self.vocab_size - first + 1
            inputs = torch.randint(n_filler, (B, L), generator=generator, device=device)
            inputs += (inputs > 0) * (first - 1)
        inputs[:, : 3 * n].view(B, n, 3).copy_(torch.stack([*keys, values], 2))
        # A query takes two places, and the filler behind it may be the one that L leaves out.
        places = draw_places(B, n, (L + 1) // 3 - n, self.power, generator)
        at = 3 * (n + places) + 1
        inputs.scatter_(1, at - 1, keys[0]).scatter_(1, at, keys[1])
        targets = torch.full_like(inputs, IGNORE).scatter_(1, at, values)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Read what followed the same two keys before."""
        import torch

        before = previous_occurrence(self._ids(inputs))
        answers = inputs.gather(1, (before + 1).clamp_min(0))
        known = (before >= 0) & (answers >= self._first_value)
        return torch.where(known, answers, UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the first value if what is visible of its keys fits, else one that is not visible.

        A window that begins with the asked second key cuts one of at most `grid` pairs that may be
        the one asked for; a window that begins with a value, one of at most grid^2.
        """
        import torch

        n, query = self._n_pairs, inputs[:, -1]
        begin = at + 1 - inputs.shape[1]
        inputs = inputs[:, : 3 * n]
        column = begin[:, None] + torch.arange(inputs.shape[1], device=at.device)
        in_grid = (column < 3 * n) & (column % 3 == 2)
        seen = torch.where(in_grid, inputs, UNKNOWN)
        guess = least_unseen(seen, self._first_value, self.vocab_size)
        if inputs.shape[1] > 1:
            fits = in_grid[:, 1] & (inputs[:, 0] == query)
            guess = torch.where(fits, inputs[:, 1], guess)
        return torch.where(in_grid[:, 0], inputs[:, 0], guess)

    def _ids(self, inputs: Tensor) -> Tensor:
        """Return (B, L): a number for each two keys where the second stands; others are unique."""
        import torch

        ids = -1 - torch.arange(inputs.shape[1], device=inputs.device).repeat(len(inputs), 1)
        first, second = inputs[:, :-1], inputs[:, 1:]
        keys = (first > 0) & (first < self._second_key)
        keys &= (second >= self._second_key) & (second < self._first_value)
        ids[:, 1:] = torch.where(keys, first * self.vocab_size + second, ids[:, 1:])
        return ids

    def _of_one(self, inputs: Tensor, behind: int) -> Tensor:
        """Return (B, L): the value `behind` places after the last such key in the grid."""
        n = self._n_pairs
        grid = inputs[:, : 3 * n].view(len(inputs), n, 3)
        keys = inputs.roll(behind - 1, 1)  # of a query, where its second key stands
        same = keys[:, :, None] == grid[:, None, :, 2 - behind]
        last = n - 1 - same.flip(2).int().argmax(2)
        return grid[..., 2].gather(1, last)

    def _in_order(self, inputs: Tensor) -> Tensor:
        n = self._n_pairs
        is_second = (inputs >= self._second_key) & (inputs < self._first_value)
        number = (is_second.cumsum(1) - n - 1).clamp(0, n - 1)  # index of the latest query
        return inputs.gather(1, 3 * number + 2)
