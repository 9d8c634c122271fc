"""Arithmetic: add two numbers of D digits.

One example with V = 11 (digits 0 to 9, `+` = 10) and L = 7, so D = 3:

    position   0  1  2  3  4  5  6  7  8  9
    inputs     1  3  5  +  6  8  3  0  8  1
    targets    .  .  .  .  .  .  0  8  1  8

Digits are uniform, the most significant comes first; the result has D + 1 digits, and a model reads
those before the one that it has to name. Source: Poli et al. 2023 (Hyena), appendix C.1, which
varies D (2, 4, 8, 16) and depth (1, 2, 3 layers). There no `+` stands between the numbers; it is
kept from table 4.1, so that what a window shows can be told from where it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.errors import ConfigError, SeqlenError
from mechbench.registry import register_task
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task("arithmetic", source="Poli et al. 2023 (Hyena), table 4.1 and appendix C.1")
@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic: name the digits of a sum.

    Attributes:
        vocab_size: V, the digits of base V - 1, and `+` (V - 1).
        seqlen: L = 2 D + 1, tokens of the two numbers of D digits and `+`; a model reads L + D.

    Raises:
        ConfigError: vocab_size below 3.
        SeqlenError: seqlen even or below 3.
    """

    vocab_size: int
    seqlen: int

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 11, "seqlen": 9}

    def __post_init__(self) -> None:
        if self.vocab_size < 3:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: arithmetic needs at least 3 (two digits and +)"
            )
        if self.seqlen < 3 or self.seqlen % 2 == 0:
            near = max(3, self.seqlen + 1 - self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: arithmetic needs an odd number of at least 3 (two "
                f"numbers and +); the nearest is {near}"
            )

    @property
    def n_digits(self) -> int:
        """D, the digits of each number."""
        return self.seqlen // 2

    @property
    def _base(self) -> int:
        return self.vocab_size - 1

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the numbers, `+` and all but the last digit of the result."""
        return self.seqlen + self.n_digits

    @property
    def chance(self) -> float:
        """A uniform guess among the digits; the first digit of the result is 0 or 1 only."""
        return 1.0 / self._base

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The sum of each place without what is carried, and zeros."""
        return {"sum without carry": self._without_carry, "zeros": lambda inputs: inputs * 0}

    def describe(self, token: int) -> str:
        """Return the digit, or `+`."""
        return "+" if token == self._base else str(token)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + D) examples on the generator's device."""
        import torch

        B, D, L = batch_size, self.n_digits, self.seqlen
        numbers = torch.randint(self._base, (B, 2, D), generator=generator, device=generator.device)
        result = self._add(numbers[:, 0], numbers[:, 1])  # (B, D + 1)
        plus = torch.full_like(numbers[:, 0, :1], self._base)
        inputs = torch.cat([numbers[:, 0], plus, numbers[:, 1], result[:, :-1]], 1)  # (B, L + D)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, L - 1 :] = result
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Add the places of which both digits are in sight."""
        import torch

        B, length = inputs.shape
        D = self.n_digits
        answers = torch.full_like(inputs, UNKNOWN)
        plus = inputs[:1] == self._base  # it stands at one place in all examples
        at = int(plus.int().argmax())
        if not plus.any() or at + D >= length:
            return answers
        hidden = D - at  # leading digits of the first number
        first = torch.cat([inputs.new_zeros(B, hidden), inputs[:, :at]], 1)
        result = self._add(first, inputs[:, at + 1 : at + 1 + D])
        if hidden:
            result[:, : hidden + 1] = UNKNOWN
        answers[:, at + D :] = result[:, : length - at - D]
        return answers

    def _add(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the (B, D + 1) digits of the sum of two (B, D) numbers."""
        import torch

        total = (first + second).flip(1)  # least significant first
        # A place of base - 1 hands on what it is handed: look at the last place below that is none.
        place = torch.arange(total.shape[1], device=total.device)
        source = torch.where(total != self._base - 1, place, -1).cummax(1).values
        carry = (source >= 0) & (total.gather(1, source.clamp_min(0)) >= self._base)
        carry = carry.long()
        none = carry[:, :1] * 0
        digits = torch.cat(
            [(total + torch.cat([none, carry[:, :-1]], 1)) % self._base, carry[:, -1:]], 1
        )
        return digits.flip(1)

    def _without_carry(self, inputs: Tensor) -> Tensor:
        D, L = self.n_digits, self.seqlen
        guess = inputs * 0
        guess[:, L:] = (inputs[:, :D] + inputs[:, D + 1 : L]) % self._base
        return guess
