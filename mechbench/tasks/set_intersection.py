"""Set intersection: which token stood in both lists?

One example with V = 12 (tokens 0 to 8, `A` = 9, `B` = 10, `=>` = 11), L = 11 and n_short = 3:

    position   0  1  2  3  4  5  6  7  8  9 10
    inputs     A  4  7  1  B  0  8  7  3  2 =>
    targets    .  .  .  .  .  .  .  .  .  .  7

Two lists, of n_short tokens and of the L - 3 - n_short others, share one token; all the others
differ, and the choice, the order and the place of the common one are uniform. The point is which
list comes first: a model that reads the short one first has less to remember. Source: Arora et al.
2024 (Just read twice, arXiv:2407.05483), whose release writes `1 A 2 B 3` with V = 2048, trains on
sizes from (4, 16) to (16, 256) and swapped, and tests up to 768.

Where the vocabulary is too small for tokens that all differ (not so in the source), lists repeat
tokens: one token is common, the others are split at random into two halves, and each list is drawn
uniformly from its half and the common token, which is then put at one uniform place of it at least.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.distinct import draw_distinct
from mechbench.tasks.shortcuts import most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "set-intersection",
    source="Arora et al. 2024 (Just read twice, arXiv:2407.05483)",
    measures="recall",
)
@dataclass(frozen=True)
class SetIntersection(Task):
    """Set intersection: name the one token that two lists share.

    Attributes:
        vocab_size: V: V - 3 tokens, `A` (V-3), `B` (V-2) and `=>` (V-1).
        seqlen: L: both lists and the three specials.
        n_short: tokens of the short list; 0: a fifth of both, as for sizes 16 and 64.
        short_first: whether the short list comes first.

    Raises:
        ConfigError: vocab_size below 6, or n_short out of range.
        SeqlenError: seqlen below 5.
    """

    vocab_size: int
    seqlen: int
    n_short: int = 0
    short_first: bool = True

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 2048, "seqlen": 83}

    def __post_init__(self) -> None:
        if self.vocab_size < 6:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: set-intersection needs at least 6 "
                "(three specials, three tokens)"
            )
        if self.seqlen < 5:
            raise SeqlenError(f"seqlen is {self.seqlen}: set-intersection needs at least 5")
        most = (self.seqlen - 3) // 2
        if not 0 <= self.n_short <= most:
            raise ConfigError(
                f"n_short is {self.n_short}: expected 1 to {most} at seqlen {self.seqlen}, "
                "or 0 for a fifth of the tokens"
            )

    @property
    def _n_tokens(self) -> int:
        return self.vocab_size - 3

    @property
    def _sizes(self) -> tuple[int, int]:
        """Tokens of the first list and of the second."""
        both = self.seqlen - 3
        short = self.n_short or max(1, both // 5)
        return (short, both - short) if self.short_first else (both - short, short)

    @property
    def _all_differ(self) -> bool:
        """Whether no list holds a token twice."""
        return self.seqlen - 4 <= self._n_tokens

    @property
    def chance(self) -> float:
        """A uniform guess among the tokens: 1 / (V - 3)."""
        return 1.0 / self._n_tokens

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Some token of either list; if tokens are repeated, the most frequent too.

        (If they are not, the most frequent token is the answer, and counting is no shortcut.)
        """
        first = self._sizes[0]
        rules: dict[str, Callable[[Tensor], Tensor]] = {
            "last token of the first list": lambda x: x[:, first : first + 1].expand_as(x),
            "last token": lambda x: x[:, -2:-1].expand_as(x),
        }
        if not self._all_differ:
            frequent = partial(most_frequent, low=0, high=self._n_tokens)
            rules["most frequent token"] = frequent
            rules["most frequent token of the first list"] = lambda x: frequent(x[:, : first + 1])[
                :, :1
            ].expand_as(x)
            rules["most frequent token of the second list"] = lambda x: frequent(x[:, first + 1 :])[
                :, :1
            ].expand_as(x)
        return rules

    @property
    def easiest_seqlen(self) -> int:
        """Lists short enough that a guess among them is often right."""
        return 20

    def easier(self, seqlen: int) -> SetIntersection:
        """Return the task at a shorter length; n_short shrinks with it."""
        short = max(1, self.n_short * seqlen // self.seqlen) if self.n_short else 0
        short = min(short, (seqlen - 3) // 2)
        return dataclasses.replace(self, seqlen=seqlen, n_short=short)

    def describe(self, token: int) -> str:
        """Return the number, `A`, `B` or `=>`."""
        V = self.vocab_size
        return {V - 3: "A", V - 2: "B", V - 1: "=>"}.get(token, str(token))

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, T, (a, b), device = batch_size, self._n_tokens, self._sizes, generator.device

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        n = a + b - 1 if self._all_differ else T
        drawn = draw_distinct(B, n, T, generator)
        common = drawn[:, :1]
        if self._all_differ:
            lists = [drawn[:, :a], torch.cat([common, drawn[:, a:]], 1)]
        else:  # halves of the others, each with the common token in front
            half = 1 + (T - 1) // 2
            halves = [drawn[:, :half], torch.cat([common, drawn[:, half:]], 1)]
            sizes = zip(halves, (a, b), strict=True)
            lists = [of.gather(1, draw(of.shape[1], B, size)) for of, size in sizes]
        special = [torch.full_like(common, T + which) for which in range(3)]
        inputs = torch.cat([special[0], lists[0], special[1], lists[1], special[2]], 1)
        # The common token swaps places with one of its list; a repeated token is just replaced.
        for begin, size in ((1, a), (a + 2, b)):
            at = begin + draw(size, B, 1)
            if self._all_differ:
                inputs[:, begin : begin + 1] = inputs.gather(1, at)
            inputs.scatter_(1, at, common)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, -1:] = common
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Find the token that is visible on both sides of the `B`, or is all that is behind it."""
        import torch

        T = self._n_tokens
        divider = inputs == T + 1
        behind = divider.cumsum(1) > 0
        divided = divider.any(1, keepdim=True)
        token = inputs < T

        def held(where: Tensor) -> Tensor:
            """Return (B, T): which tokens stand at such places."""
            there = torch.zeros(len(inputs), T + 1, dtype=torch.int8, device=inputs.device)
            return there.scatter_(1, torch.where(where & token, inputs, T), 1)[:, :T]

        first, second = held(~behind), held(behind)
        common = (first * second).max(1, keepdim=True)
        only = second.max(1, keepdim=True)
        answer = torch.where(common.values > 0, common.indices, only.indices)
        sole = second.sum(1, keepdim=True) == 1
        told = divided & ((common.values > 0) | sole) & (inputs[:, -1:] == T + 2)
        answers = torch.full_like(inputs, UNKNOWN)
        answers[:, -1:] = torch.where(told, answer, UNKNOWN)
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the visible token of the second list that occurs most often: one of few."""
        import torch

        T = self._n_tokens
        divider = inputs == T + 1
        # Behind the divider, or everywhere if it is not visible.
        second = (divider.cumsum(1) > 0) | ~divider.any(1, keepdim=True)
        guess = most_frequent(torch.where(second, inputs, T), 0, T)[:, 0]
        return torch.where((second & (inputs < T)).any(1), guess, UNKNOWN)
