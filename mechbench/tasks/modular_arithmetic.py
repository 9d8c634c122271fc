"""Modular arithmetic: evaluate digits between + - x, products first.

One example with modulus 5 (digits 0 to 4, `+` `-` `x` = 5 6 7, `=` = 8), L = 7 and 5 tokens, as
min_seqlen allows:

    position  0  1  2  3  4  5  6  7
    inputs    3  -  4  x  2  =  0  0
    targets   .  .  .  .  .  0  .  .

That is 3 - (4 x 2) = -5, modulo 5. Digits and operations are uniform and take turns; then `=`, at
which the value is due. An expression has an odd number of tokens: of even lengths, one less. Behind
`=` stands padding, which is the digit 0 and asks for nothing. Source: Deletang et al. 2022
(arXiv:2207.02098), "modular arithmetic (simple)", modulo 5, and the protocol of xLSTM
(arXiv:2405.04517): trained at lengths 3 to 40, tested up to 256. Expressions with brackets are the
task list-ops, in prefix notation.

Zero is a little likelier than other answers in short expressions, because it absorbs products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.lengths import check_min_seqlen, draw_lengths

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PLUS, _MINUS, _TIMES, _EQUALS = range(4)  # tokens behind the digits
_MOST = 1000  # largest modulus


@register_task(
    "modular-arithmetic", source="Deletang et al. 2022 (arXiv:2207.02098)", measures="arithmetic"
)
@dataclass(frozen=True)
class ModularArithmetic(Task):
    """Modular arithmetic: name the value of digits between + - x.

    Attributes:
        vocab_size: V, at least modulus + 4: the digits, + - x and `=`; the others are not used.
        seqlen: L, most tokens of an expression; a model reads L + 1.
        modulus: m; digits and answers are below it.
        min_seqlen: fewest tokens of an expression; 0 for L alone.

    Raises:
        ConfigError: modulus outside [2, 1000], vocab_size too small, or min_seqlen outside [3,
            seqlen].
        SeqlenError: seqlen below 3.
    """

    vocab_size: int
    seqlen: int
    modulus: int = 5
    min_seqlen: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 9, "seqlen": 40}

    def __post_init__(self) -> None:
        if not 2 <= self.modulus <= _MOST:
            raise ConfigError(f"modulus is {self.modulus}: expected 2 to {_MOST}")
        if self.vocab_size < self.modulus + 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: modular-arithmetic modulo {self.modulus} needs "
                f"at least {self.modulus + 4} (digits, + - x, `=`)"
            )
        if self.seqlen < 3:
            raise SeqlenError(f"seqlen is {self.seqlen}: modular-arithmetic needs at least 3")
        check_min_seqlen(self.min_seqlen, self.seqlen, 3)

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return as many tokens as the modulus needs, and L 40."""
        return {**cls.defaults, "vocab_size": options["modulus"] + 4}

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
        """Zero, the last digit, the last term alone, and all from left to right but products."""
        return {
            "zero": lambda inputs: inputs * 0,
            "last digit": lambda inputs: inputs.roll(1, 1),
            "last term": self._last_term,
            "every x read as +": self._no_products,
        }

    @property
    def easiest_seqlen(self) -> int:
        """Eight digits, but where lengths vary: then there are short ones anyway."""
        return self.seqlen if self.min_seqlen else 16

    def describe(self, token: int) -> str:
        """Return the digit, `+`, `-`, `x` or `=`; # stands for what is not used."""
        signs = dict(enumerate("+-x=", start=self.modulus))
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
        inputs = torch.stack([digits, signs], 2).flatten(1)
        inputs = torch.nn.functional.pad(inputs, (0, self.input_seqlen - inputs.shape[1]))
        targets = torch.full_like(inputs, IGNORE)
        targets.scatter_(1, 2 * last + 1, self._values(digits, signs).gather(1, last))
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Evaluate; a window tells nothing, as anything may be added before it."""
        if inputs.shape[1] < self.input_seqlen:
            return inputs * 0 + UNKNOWN
        return self._at_equals(inputs, self._values(*_apart(inputs)))

    def _values(self, digits: Tensor, signs: Tensor) -> Tensor:
        """Return (B, N): the value of the expression up to each digit; signs stand behind them."""
        import torch

        m = self.modulus
        before = torch.nn.functional.pad(signs, (1, 0), value=m + _PLUS)[:, :-1]
        product = self._terms(digits, before)
        closed = torch.where(signs == m + _TIMES, 0, product)  # terms that end at the digit
        earlier = torch.nn.functional.pad(closed.cumsum(1), (1, 0))[:, :-1]
        return (earlier + product) % m

    def _terms(self, digits: Tensor, before: Tensor) -> Tensor:
        """Return (B, N): the signed product of each digit's term up to it, by doubling."""
        import torch

        m = self.modulus
        first = before != m + _TIMES
        product, reach = torch.where(before == m + _MINUS, m - digits, digits), 1
        while reach < digits.shape[1]:
            behind = product[:, reach:] * product[:, :-reach] % m
            joined = torch.where(first[:, reach:], product[:, reach:], behind)
            product = torch.cat([product[:, :reach], joined], 1)
            first = torch.cat([first[:, :reach], first[:, reach:] | first[:, :-reach]], 1)
            reach *= 2
        return product

    def _at_equals(self, inputs: Tensor, values: Tensor) -> Tensor:
        """Return (B, T): at `=` the value (B, N) of the digit before it, elsewhere -1."""
        import torch

        known = torch.stack([torch.full_like(values, UNKNOWN), values], 2).flatten(1)
        known = torch.nn.functional.pad(known, (0, 1), value=UNKNOWN)[:, : inputs.shape[1]]
        return torch.where(inputs == self.modulus + _EQUALS, known, UNKNOWN)

    def _last_term(self, inputs: Tensor) -> Tensor:
        import torch

        digits, signs = _apart(inputs)
        before = torch.nn.functional.pad(signs, (1, 0), value=self.modulus)[:, :-1]
        return self._at_equals(inputs, self._terms(digits, before) % self.modulus)

    def _no_products(self, inputs: Tensor) -> Tensor:
        digits, signs = _apart(inputs)
        added = signs.masked_fill(signs == self.modulus + _TIMES, self.modulus + _PLUS)
        return self._at_equals(inputs, self._values(digits, added))


def _apart(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the digits and the signs behind them, (B, N) each, of whole examples."""
    import torch

    whole = torch.nn.functional.pad(inputs, (0, inputs.shape[1] % 2))
    return whole[:, ::2], whole[:, 1::2]
