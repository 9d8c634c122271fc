"""Modular arithmetic: evaluate digits between + - x, products first, with brackets or without.

One example with modulus 5 (digits 0 to 4, `+` `-` `x` = 5 6 7, `=` = 8), L = 7 and 5 tokens, as
min_seqlen allows, and one with brackets (9 and 10) and L = 11:

    position  0  1  2  3  4  5  6  7       0  1  2  3  4  5  6  7  8  9 10 11
    inputs    3  -  4  x  2  =  0  0       (  3  -  (  4  )  )  x  2  +  1  =
    targets   .  .  .  .  .  0  .  .       .  .  .  .  .  .  .  .  .  .  .  4

That is 3 - (4 x 2) = -5 and (3 - 4) x 2 + 1 = -1, modulo 5. Digits and operations are uniform and
take turns; then `=`, at which the value is due. An expression has an odd number of tokens: of even
lengths, one less. Behind `=` stands padding, which is the digit 0 and asks for nothing. Source:
Deletang et al. 2022 (arXiv:2207.02098), "modular arithmetic (simple)" and, with brackets, "modular
arithmetic", modulo 5, and the protocol of xLSTM (arXiv:2405.04517): trained at lengths 3 to 40,
tested up to 256.

The source splits an expression at random, again and again, and puts brackets around every
operation. Ours are drawn all at once. What begins at a place, a bracket or a digit, stands in 0 to
d + 1 brackets if what began before stands in d, and any such depths make one expression of exactly
as many tokens. So depths are drawn: half of the time the last one again, else one that is uniform
in 0 to `depth`, or d + 1 if that is less. Every expression up to that depth can occur, also with
brackets around one digit or around brackets.

Zero is likelier than other answers in short expressions and brackets, because it absorbs products.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.expressions import PLUS, TIMES, evaluate
from mechbench.tasks.lengths import check_min_seqlen, draw_lengths
from mechbench.tasks.shortcuts import latest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_EQUALS, _OPENS, _CLOSES = range(3, 6)  # tokens behind the digits and + - x
_MOST = 1000  # largest modulus


@register_task(
    "modular-arithmetic", source="Deletang et al. 2022 (arXiv:2207.02098)", measures="arithmetic"
)
@dataclass(frozen=True)
class ModularArithmetic(Task):
    """Modular arithmetic: name the value of digits between + - x.

    Attributes:
        vocab_size: V: modulus digits, + - x and `=`, two brackets, if any; others are not used.
        seqlen: L, most tokens of an expression; a model reads L + 1.
        modulus: m; digits and answers are below it.
        brackets: whether there are brackets.
        depth: most brackets around a digit, if there are any.
        min_seqlen: fewest tokens of an expression; 0 for L alone.

    Raises:
        ConfigError: modulus outside [2, 1000], depth outside [1, (L - 1) / 2], vocab_size too
            small, or min_seqlen outside [3, seqlen].
        SeqlenError: seqlen below 3.
    """

    vocab_size: int
    seqlen: int
    modulus: int = 5
    brackets: bool = False
    depth: int = 3
    min_seqlen: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 9, "seqlen": 40}

    def __post_init__(self) -> None:
        if not 2 <= self.modulus <= _MOST:
            raise ConfigError(f"modulus is {self.modulus}: expected 2 to {_MOST}")
        least = self._n_tokens(self.modulus, self.brackets)
        if self.vocab_size < least:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: modular-arithmetic modulo {self.modulus} needs "
                f"at least {least} (digits, + - x, `=`{', brackets' if self.brackets else ''})"
            )
        if self.seqlen < 3:
            raise SeqlenError(f"seqlen is {self.seqlen}: modular-arithmetic needs at least 3")
        check_min_seqlen(self.min_seqlen, self.seqlen, 3)
        deepest = (self.seqlen - 1) // 2
        if self.brackets and not 1 <= self.depth <= deepest:
            raise ConfigError(
                f"depth is {self.depth}: expected 1 to {deepest}, as {self.seqlen} tokens have no "
                f"deeper brackets; the nearest is {min(max(self.depth, 1), deepest)}"
            )

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return as many tokens as the modulus and brackets need, and L 40."""
        vocab_size = cls._n_tokens(options["modulus"], options["brackets"])
        return {**cls.defaults, "vocab_size": vocab_size}

    @staticmethod
    def _n_tokens(modulus: int, brackets: bool) -> int:
        return modulus + (6 if brackets else 4)

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the expression and `=`."""
        return self.seqlen + 1

    @property
    def chance(self) -> float:
        """A uniform guess among the digits."""
        return 1.0 / self.modulus

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Zero, the last digit, the last term alone, all but products, and all but brackets."""
        rules: dict[str, Callable[[Tensor], Tensor]] = {
            "most frequent answer": lambda inputs: inputs * 0,
            "last digit": lambda inputs: latest(inputs, 0, self.modulus),
            "last term": self._last_term,
            "every x read as +": self._no_products,
        }
        if self.brackets:
            rules["without the brackets"] = self._no_brackets
        return rules

    @property
    def easiest_seqlen(self) -> int:
        """Eight digits, but where lengths vary: then there are short ones anyway."""
        return self.seqlen if self.min_seqlen else 16

    def easier(self, seqlen: int) -> Task:
        """Return the task at a shorter length, with no deeper brackets than that allows."""
        depth = min(self.depth, max(1, (seqlen - 1) // 2)) if self.brackets else self.depth
        return Task.easier(dataclasses.replace(self, depth=depth), seqlen)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """With brackets name zero, the likeliest value; without, it is hardly likelier.

        What is seen of an expression may favour another number, so this is a lower bound.
        """
        return at * 0 if self.brackets else at * 0 + UNKNOWN

    def describe(self, token: int) -> str:
        """Return the digit, `+`, `-`, `x`, `=` or bracket; # stands for what is not used."""
        signs = dict(enumerate("+-x=()" if self.brackets else "+-x=", start=self.modulus))
        return signs.get(token, str(token) if token < self.modulus else f"#{token}")

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + 1) examples on the generator's device."""
        import torch

        B, m, device = batch_size, self.modulus, generator.device
        n_digits = (self.seqlen + 1) // 2

        def draw(high: int) -> Tensor:
            return torch.randint(high, (B, n_digits), generator=generator, device=device)

        lengths = draw_lengths(B, self.min_seqlen, self.seqlen, generator)
        last = (lengths - 1) // 2  # the digit before `=`
        place = torch.arange(n_digits, device=device)
        digits = draw(m).where(place <= last, 0)
        signs = (m + draw(3)).where(place < last, 0)
        signs = signs.scatter(1, last, m + _EQUALS)
        operators = torch.nn.functional.pad(signs - m, (1, 0), value=PLUS)[:, :-1]
        if self.brackets:
            depth = self._depths(draw(2 * self.depth + 2).where(place <= last, 0).int())
            opens = torch.nn.functional.pad(depth[:, 1:] > depth[:, :-1], (0, 1))
            inputs = self._written(digits.masked_fill(opens, m + _OPENS), signs, depth)
            digits = digits.masked_fill(opens, 0)
            operators[:, 1:].masked_fill_(opens[:, :-1], PLUS)
        else:
            depth = torch.zeros_like(digits, dtype=torch.int32)
            inputs = torch.stack([digits, signs], 2).flatten(1)
        inputs = torch.nn.functional.pad(inputs, (0, self.input_seqlen - inputs.shape[1]))
        targets = torch.full_like(inputs, IGNORE)
        targets.scatter_(1, 2 * last + 1, self._evaluate(digits, operators, depth))
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Evaluate; a window tells nothing, as anything may be added before it."""
        if inputs.shape[1] < self.input_seqlen:
            return inputs * 0 + UNKNOWN
        return self._at_equals(inputs, self._evaluate(*self._read(inputs)))

    @property
    def _levels(self) -> int:
        return self.depth if self.brackets else 0

    def _depths(self, drawn: Tensor) -> Tensor:
        """Return (B, N): in how many brackets things stand, from uniform [0, 2 depth + 2)."""
        import torch

        drawn = torch.nn.functional.pad(drawn[:, 1:], (1, 0))
        changes = drawn <= self.depth
        n = changes.cumsum(1, dtype=torch.int32)
        # As drawn, or one more than before if that is less: the least of what came so far, each one
        # more for every change since.
        return torch.where(changes, drawn - n, self.depth).cummin(1).values + n

    def _written(self, begun: Tensor, signs: Tensor, depth: Tensor) -> Tensor:
        """Return (B, 2 N): digits and opening brackets (B, N), signs behind, and `)` between."""
        import torch

        N = begun.shape[1]
        at = 2 * torch.arange(N + 1, device=begun.device) - torch.nn.functional.pad(depth, (0, 1))
        inputs = begun.new_full((len(begun), 2 * N), self.modulus + _CLOSES)
        # The sign behind an opening bracket is overwritten: the bracket stands where it would.
        inputs.scatter_(1, at[:, 1:] - 1, signs)
        return inputs.scatter_(1, at[:, :-1], begun)

    def _evaluate(self, values: Tensor, operators: Tensor, depth: Tensor) -> Tensor:
        return evaluate(values, operators, depth, self._levels, self.modulus)

    def _read(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `evaluate` takes, (B, T) each, for whole examples.

        What begins no operand is deeper than any.
        """
        import torch

        m = self.modulus
        opens, closes = inputs == m + _OPENS, inputs == m + _CLOSES
        begins = ((inputs < m) | opens) & ((inputs == m + _EQUALS).cumsum(1) == 0)
        depth = (opens.int() - closes.int()).cumsum(1) - opens.int()
        before = torch.nn.functional.pad(inputs - m, (1, 0), value=PLUS)[:, :-1]
        return inputs * (inputs < m), before, depth.where(begins, self._levels + 1)

    def _at_equals(self, inputs: Tensor, answers: Tensor) -> Tensor:
        """Return (B, T): at `=` the answers (B, 1), elsewhere -1."""
        import torch

        return torch.where(inputs == self.modulus + _EQUALS, answers, UNKNOWN)

    def _last_term(self, inputs: Tensor) -> Tensor:
        values, operators, depth = self._read(inputs)
        terms = ((depth == 0) & (operators != TIMES)).cumsum(1)
        depth = depth.where(terms == terms[:, -1:], self._levels + 1)
        return self._at_equals(inputs, self._evaluate(values, operators, depth))

    def _no_products(self, inputs: Tensor) -> Tensor:
        values, operators, depth = self._read(inputs)
        added = operators.masked_fill(operators == TIMES, PLUS)
        return self._at_equals(inputs, self._evaluate(values, added, depth))

    def _no_brackets(self, inputs: Tensor) -> Tensor:
        values, _, depth = self._read(inputs)
        m = self.modulus
        operators = latest(inputs, m, m + _EQUALS) - m
        digits = (inputs < m) & (depth <= self._levels)
        answers = evaluate(values, operators, 1 - digits.int(), 0, m)
        return self._at_equals(inputs, answers)
