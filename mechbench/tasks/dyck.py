"""Dyck: name the kind of the bracket that closes.

One example with 2 kinds (opening `(1` `(2` = 0 1, closing `)` = 2, answers `)1` `)2` = 3 4), L = 8
and max_depth = 2:

    position   0  1  2  3  4  5  6  7
    inputs    (1 (2  ) (1  )  ) (2  )
    targets    .  . )2  . )1 )1  . )2

Brackets are nested and all closed at the end; no more than max_depth are open at once. Kinds are
uniform. Source: Hewitt et al. 2020, arXiv:2010.07515, whose Dyck-(k, m) has k kinds and depth m,
and who score closing brackets as here. Where one closes is random, so that a model cannot know; in
the source it is only scored there, here it reads `)` and names the kind. So the input does not
repeat the kinds of closed brackets, and the answers are tokens of their own.

The distribution is ours: the depth is a random walk with as many steps up as down, all orders
equally likely, that is reflected at 0 and at max_depth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.distinct import draw_wide
from mechbench.tasks.previous_occurrence import previous_occurrence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_DEPTH = 8  # by default
_BITS = 40  # drawn before the first scored position


@register_task("dyck", source="Hewitt et al. 2020, arXiv:2010.07515", measures="language")
@dataclass(frozen=True)
class Dyck(Task):
    """Dyck: name the kind of the bracket that closes.

    Attributes:
        vocab_size: V: opening brackets of each kind, `)`, the answers of each kind, unused ones.
        seqlen: L, brackets.
        n_kinds: k, kinds of brackets.
        max_depth: m, most brackets open at once; 0 for 8, or as many as the length allows.

    Raises:
        ConfigError: n_kinds below 2, max_depth below 0 or above seqlen / 2, or vocab_size below
            2 n_kinds + 1.
        SeqlenError: seqlen odd or below 2.
    """

    vocab_size: int
    seqlen: int
    n_kinds: int = 8
    max_depth: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 17, "seqlen": 64}

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the smallest vocabulary that holds the kinds."""
        return {**cls.defaults, "vocab_size": 2 * options["n_kinds"] + 1}

    def __post_init__(self) -> None:
        if self.n_kinds < 2:
            raise ConfigError(f"n_kinds is {self.n_kinds}: expected at least 2")
        if self.max_depth < 0:
            raise ConfigError(
                f"max_depth is {self.max_depth}: expected 0, for the default, or more"
            )
        if self.vocab_size <= 2 * self.n_kinds:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: dyck with {self.n_kinds} kinds needs at least "
                f"{2 * self.n_kinds + 1}"
            )
        if self.seqlen < 2 or self.seqlen % 2:
            near = max(2, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: dyck needs an even number of at least 2 (every bracket "
                f"closes); the nearest is {near}"
            )
        if self.max_depth > self.seqlen // 2:
            raise ConfigError(
                f"max_depth is {self.max_depth}: {self.seqlen} brackets are at most "
                f"{self.seqlen // 2} deep"
            )

    def easier(self, seqlen: int) -> Dyck:
        """Return the task with fewer brackets, which cannot be as deep."""
        return dataclasses.replace(self, seqlen=seqlen, max_depth=min(self.max_depth, seqlen // 2))

    @property
    def depth(self) -> int:
        """Most brackets open at once."""
        return self.max_depth or min(_DEPTH, self.seqlen // 2)

    @property
    def apart_by(self) -> int:
        """Tokens with which about 40 bits have been drawn, at most all.

        Half of them open and draw a kind; all but one in m may open or close.
        """
        bits = math.log2(self.n_kinds) / 2 + 1 - 1 / self.depth
        return min(self.seqlen, math.ceil(_BITS / bits))

    @property
    def chance(self) -> float:
        """A uniform guess among the kinds."""
        return 1.0 / self.n_kinds

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The bracket opened last, and the one opened as many before as closed since then."""
        return {"last opened": self._last_opened, "n-th last opened, n-th closed": self._in_a_row}

    @property
    def easiest_seqlen(self) -> int:
        """Short enough that one bracket in 64 matters."""
        return 64

    def describe(self, token: int) -> str:
        """Return `(1`, `(2`, ..., `)`, or `)1`, `)2`, ..."""
        k = self.n_kinds
        if token <= k:
            return f"({token + 1}" if token < k else ")"
        return f"){token - k}" if token <= 2 * k else f"unused {token}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, k, m = batch_size, self.seqlen, self.n_kinds, self.depth
        device = generator.device
        up = draw_wide((B, L), generator).argsort(1) % 2
        height = (2 * up - 1).cumsum(1)
        depth = ((height + m) % (2 * m) - m).abs()  # reflected at 0 and m
        opens = torch.diff(depth, dim=1, prepend=depth[:, :1] * 0) > 0
        kinds = torch.randint(k, (B, L), generator=generator, device=device)
        inputs = torch.where(opens, kinds, k)
        answers = self.oracle(inputs)
        dense = torch.where(opens, IGNORE, answers)
        targets = dense.clone()
        targets[:, : self.apart_by - 1] = IGNORE
        return Batch(inputs, targets, dense)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Look up the last bracket of the same depth, which opened."""
        import torch

        closes = inputs == self.n_kinds
        depth = (1 - 2 * closes.long()).cumsum(1)  # from that of the window's start
        opened = previous_occurrence(depth + closes.long())
        told = closes & (opened >= 0)
        kind = inputs.gather(1, opened.clamp_min(0))
        return torch.where(told, kind + self.n_kinds + 1, UNKNOWN)

    def _last_opened(self, inputs: Tensor) -> Tensor:
        return self._nth_last(inputs, inputs * 0)

    def _in_a_row(self, inputs: Tensor) -> Tensor:
        import torch

        place = torch.arange(inputs.shape[1], device=inputs.device)
        latest = torch.where(inputs < self.n_kinds, place, 0).cummax(1).values
        return self._nth_last(inputs, place - latest - 1)

    def _nth_last(self, inputs: Tensor, back: Tensor) -> Tensor:
        """Return (B, L): the kind of the bracket opened `back` before the last one, else the first.

        Opening brackets are put side by side, in order.
        """
        opens = inputs < self.n_kinds
        nth = opens.long().cumsum(1) - 1
        kinds = inputs.new_zeros(len(inputs), inputs.shape[1] + 1)
        kinds.scatter_(1, nth.where(opens, nth * 0 + inputs.shape[1]), inputs)
        return kinds.gather(1, (nth - back).clamp_min(0)) + self.n_kinds + 1
