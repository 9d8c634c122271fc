"""Selective copying: repeat the tokens between the blanks, in order.

One example with V = 8 (data 0 to 5, blank `_` = 6, `=>` = 7), L = 12 and n_copied = 3:

    position   0  1  2  3  4  5  6  7  8  9 10 11
    inputs     _  2  _  _  _  5  _  0  => _  _  _
    targets    .  .  .  .  .  .  .  .  .  2  5  0

There are n_copied uniform data tokens; each of the other places before `=>` is a blank, put before
a data token chosen uniformly, so that the last data token stands right before `=>`. The targets
stand at blanks, and the tokens are not shown again. Source: Poli et al. 2024 (MAD), section 3.1 and
appendix B, exactly as released; its axes are V 32, 64, 128, L 512, 1024 and n_copied 32, 64, 96.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.shortcuts import latest, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "selective-copying", source="Poli et al. 2024 (MAD), section 3.1", measures="copying"
)
@dataclass(frozen=True)
class SelectiveCopying(Task):
    """Selective copying: repeat the data tokens that stood between blanks.

    Attributes:
        vocab_size: V: V - 2 data tokens, blank (V-2) and `=>` (V-1).
        seqlen: L, tokens of an example, including the places for the answers.
        n_copied: number of data tokens to copy.

    Raises:
        ConfigError: vocab_size below 4, or n_copied below 1.
        SeqlenError: seqlen below 2 n_copied + 2.
    """

    vocab_size: int
    seqlen: int
    n_copied: int = 16

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 16, "seqlen": 256}

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: selective-copying needs at least 4 "
                "(two specials, two data tokens)"
            )
        if self.n_copied < 1:
            raise ConfigError(f"n_copied is {self.n_copied}: expected at least 1")
        if self.seqlen < 2 * self.n_copied + 2:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: copying {self.n_copied} token(s) needs at least "
                f"{2 * self.n_copied + 2}"
            )

    @property
    def _n_data(self) -> int:
        return self.vocab_size - 2

    @property
    def chance(self) -> float:
        """A uniform guess among the data tokens: 1 / (V - 2)."""
        return 1.0 / self._n_data

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent data token, and the last one."""
        return {
            "most frequent token": partial(most_frequent, low=0, high=self._n_data),
            "last token": partial(latest, low=0, high=self._n_data),
        }

    @property
    def easiest_seqlen(self) -> int:
        """The power of two that leaves as many blanks as data tokens."""
        return 1 << (3 * self.n_copied).bit_length()

    def describe(self, token: int) -> str:
        """Return the number, `_` or `=>`."""
        return {self.vocab_size - 2: "_", self.vocab_size - 1: "=>"}.get(token, str(token))

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, n = batch_size, self.seqlen, self.n_copied
        device = generator.device

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        data = draw(self._n_data, B, n)
        before = draw(n, B, L - 2 * n - 1)  # the data token that each blank stands before
        blanks = torch.zeros(B, n, dtype=torch.int64, device=device)
        blanks.scatter_add_(1, before, torch.ones_like(before))
        at = blanks.cumsum(1) + torch.arange(n, device=device)  # (B, n)
        inputs = torch.full((B, L), self.vocab_size - 2, device=device)
        inputs.scatter_(1, at, data)
        inputs[:, L - n - 1] = self.vocab_size - 1
        targets = torch.full_like(inputs, IGNORE)
        targets[:, L - n :] = data
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Number the data tokens backwards from `=>` and read them in order."""
        import torch

        B, length = inputs.shape
        n = self.n_copied
        is_data = inputs < self._n_data
        shown = is_data.sum(1, keepdim=True)
        index = is_data.cumsum(1) - 1 + n - shown  # if any are visible, the last is among them
        data = torch.full((B, n + 1), UNKNOWN, device=inputs.device)
        data.scatter_(1, torch.where(is_data, index, n), inputs)
        data[:, n] = UNKNOWN
        position = torch.arange(length, device=inputs.device)
        copy = torch.where(inputs == self.vocab_size - 1, position, length).amin(1, keepdim=True)
        ahead = position - copy - 1
        return data.gather(1, torch.where((ahead >= 0) & (ahead < n), ahead, n))
