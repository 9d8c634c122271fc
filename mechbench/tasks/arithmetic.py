"""Arithmetic: add two numbers of D digits.

One example with V = 11 (digits 0 to 9, `+` = 10) and L = 7, so D = 3:

    position   0  1  2  3  4  5  6  7  8  9
    inputs     1  3  5  +  6  8  3  0  8  1
    targets    .  .  .  .  .  .  0  8  1  8

Digits are uniform, most significant first. The result has D + 1 digits; when a model names one of
them, it has already read those before it. Source: Poli et al. 2023 (Hyena), appendix C.1, which
varies D (2, 4, 8, 16) and depth (1, 2, 3 layers). Appendix C.1 puts no `+` between the numbers; we
keep the one of table 4.1, so that a truncated window still shows where each number lies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BLOCK = 1 << 22  # most probabilities held in memory at once


@register_task(
    "arithmetic",
    source="Poli et al. 2023 (Hyena), table 4.1 and appendix C.1",
    measures="arithmetic",
)
@dataclass(frozen=True)
class Arithmetic(Task):
    """Arithmetic: name the digits of a sum.

    Attributes:
        vocab_size: V: the digits 0 to V - 2 of base V - 1, and `+` (V - 1).
        seqlen: L = 2 D + 1: two numbers of D digits with `+` between; a model reads L + D tokens.

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
        """Tokens a model reads: the numbers, `+`, and all but the last digit of the result."""
        return self.seqlen + self.n_digits

    @property
    def chance(self) -> float:
        """A uniform guess among the digits; the first digit of the result is 0 or 1 only."""
        return 1.0 / self._base

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The sum of each place ignoring carries, and all zeros."""
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
        """Add the places where both digits are visible."""
        import torch

        length, D = inputs.shape[1], self.n_digits
        answers = torch.full_like(inputs, UNKNOWN)
        plus = inputs == self._base
        place = torch.where(plus.any(1), plus.int().argmax(1), length)
        for at in torch.unique(place).tolist():  # one unless rows are cut differently
            if at + D >= length:
                continue
            rows = place == at
            hidden = D - at  # leading digits of the first number that the window cuts off
            first = torch.nn.functional.pad(inputs[rows, :at], (hidden, 0))
            result = self._add(first, inputs[rows, at + 1 : at + 1 + D])
            if hidden:
                result[:, : hidden + 1] = UNKNOWN
            answers[rows, at + D :] = result[:, : length - at - D]
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the likeliest digit, given that hidden digits are uniform.

        Carries form a Markov chain over the places: the lower places tell what is carried into the
        place asked for, and the digits already named tell what that place carries out.
        """
        import torch

        guess = torch.empty_like(at)
        for column in torch.unique(at).tolist():  # at most D + 1
            rows = at == column
            pieces = torch.split(inputs[rows], max(1, _BLOCK // self._base))
            guess[rows] = torch.cat([self._likeliest(piece, column) for piece in pieces])
        return guess

    def _likeliest(self, inputs: Tensor, column: int) -> Tensor:
        """Return (B,): the likeliest answer at `column`, the last position of `inputs`."""
        import torch

        D, base = self.n_digits, self._base
        hidden, named = column + 1 - inputs.shape[1], column - 2 * D  # digits of the result named
        known = torch.ones(len(inputs), dtype=torch.float64, device=inputs.device)

        def seen(position: int) -> Tensor | None:
            return inputs[:, position - hidden] if position >= hidden else None

        def p_sum(place: int, total: Tensor) -> Tensor:
            """Return the probability that the two digits of `place` sum to `total`."""
            first, second = seen(place), seen(D + 1 + place)
            if second is None:
                return (base - (total - base + 1).abs()).clamp_min(0) / base**2
            if first is None:
                return ((total >= second) & (total < second + base)) / base
            return (total == first + second).double()

        def p_carry(place: int, carried: int) -> Tensor:
            """Return the probability that `place` carries when `carried` is carried into it."""
            first, second = seen(place), seen(D + 1 + place)
            if second is None:
                return known * (base - 1 + 2 * carried) / (2 * base)
            if first is None:
                return (second + carried) / base
            return (first + second + carried >= base).double()

        def sum_over_carries(
            place: int, digit: Tensor | None, carried: int, above: list[Tensor]
        ) -> Tensor:
            """Return the probability of `digit` at `place` and of the digits above it."""
            if digit is None:
                p = p_carry(place, carried)
                return above[0] * (1 - p) + above[1] * p
            none, one = (p_sum(place, digit + c * base - carried) for c in (0, 1))
            return above[0] * none + above[1] * one

        below = [known, known * 0]  # probabilities of no carry and a carry into the place
        for place in range(D - 1, max(named, 1) - 1, -1):
            carry = below[0] * p_carry(place, 0) + below[1] * p_carry(place, 1)
            below = [1 - carry, carry]
        if not named:
            carry = below[0] * p_carry(0, 0) + below[1] * p_carry(0, 1)
            return (carry > 0.5).long()
        digit = seen(2 * D + 1)
        above = [known if digit is None else (digit == c).double() for c in (0, 1)]
        for place in range(named - 1):
            above = [
                sum_over_carries(place, seen(2 * D + 2 + place), carried, above)
                for carried in (0, 1)
            ]
        digits = torch.arange(base, device=inputs.device)[:, None]  # against (B,)
        score = below[0] * sum_over_carries(named - 1, digits, 0, above)
        score = score + below[1] * sum_over_carries(named - 1, digits, 1, above)
        return score.argmax(0)

    def _add(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the (B, D + 1) digits of the sum of two (B, D) numbers."""
        import torch

        total = (first + second).flip(1)  # least significant first
        # A place that sums to base - 1 passes its carry on, so look at the last place below that
        # does not.
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
