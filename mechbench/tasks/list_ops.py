"""List operations: evaluate a nested expression of + - x in one go.

One example with modulus 5 (numbers 0 to 4, `+` `-` `x` = 5 6 7, `=` = 8) and L = 3:

    position   0  1  2  3  4  5  6  7
    inputs     -  x  3  4  +  1  2  =
    targets    .  .  .  .  .  .  .  4

That is (3 x 4) - (1 + 2) = 9, modulo 5. An expression in prefix notation has L operations and L + 1
operands; its answer is its value modulo m. Operations and operands are uniform, and so is the shape
among all binary trees with L operations. Source: Allen-Zhu 2025, arXiv:2512.17351 (Physics of
language models, part 4.1: "Mano"), with m = 23 and L of 10, 13 and 16. Two things are ours: the
distribution of shapes, and that every example has L operations and no token that says so.

Zero is likelier than other answers, because it absorbs products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.prefix_trees import MOST, N_OPERATIONS, draw_shapes, values

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task("list-ops", source="Allen-Zhu 2025, arXiv:2512.17351 (Mano)", measures="arithmetic")
@dataclass(frozen=True)
class ListOps(Task):
    """List operations: name the value of a nested expression.

    Attributes:
        vocab_size: V: the numbers, three operations, `=`, and unused ones.
        seqlen: L, operations; a model reads 2 L + 2 tokens.
        modulus: m; operands and answers are below it.

    Raises:
        ConfigError: modulus out of range, or vocab_size below modulus + 4.
        SeqlenError: seqlen below 1.
    """

    vocab_size: int
    seqlen: int
    modulus: int = 23

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 27, "seqlen": 10}

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the smallest vocabulary that holds the numbers."""
        return {**cls.defaults, "vocab_size": options["modulus"] + 4}

    def __post_init__(self) -> None:
        if not 2 <= self.modulus <= MOST:
            raise ConfigError(f"modulus is {self.modulus}: expected 2 to {MOST}")
        if self.vocab_size < self.modulus + 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: list-ops modulo {self.modulus} needs at least "
                f"{self.modulus + 4} (numbers, + - x, =)"
            )
        if self.seqlen < 1:
            raise SeqlenError(f"seqlen is {self.seqlen}: list-ops needs at least 1 operation")

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: L operations, L + 1 operands and `=`."""
        return 2 * self.seqlen + 2

    @property
    def chance(self) -> float:
        """A uniform guess among the numbers."""
        return 1.0 / self.modulus

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Zero, the last operand, and the sum of all operands."""
        return {
            "most frequent answer": lambda inputs: inputs * 0,
            "last operand": lambda inputs: inputs[:, -2:-1].expand_as(inputs),
            "sum of operands": self._sum,
        }

    @property
    def easiest_seqlen(self) -> int:
        """Two operations: one alone has few distinct examples."""
        return 2

    def describe(self, token: int) -> str:
        """Return the number, `+`, `-`, `x` or `=`."""
        signs = dict(enumerate("+-x=", start=self.modulus))
        return signs.get(token, str(token) if token < self.modulus else f"unused {token}")

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, 2 L + 2) examples on the generator's device."""
        import torch

        m, shape = self.modulus, (batch_size, 2 * self.seqlen + 1)
        device = generator.device
        operation = draw_shapes(batch_size, self.seqlen, generator)
        operands = torch.randint(m, shape, generator=generator, device=device)
        signs = torch.randint(N_OPERATIONS, shape, generator=generator, device=device)
        content = torch.where(operation, signs, operands)
        inputs = torch.nn.functional.pad(content + m * operation, (0, 1), value=m + N_OPERATIONS)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, -1] = values(operation, content, m)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Evaluate; a window that hides any of the expression does not tell."""
        import torch

        answers = torch.full_like(inputs, UNKNOWN)
        if inputs.shape[1] == self.input_seqlen:
            tokens, m = inputs[:, :-1], self.modulus
            operation = tokens >= m
            answers[:, -1] = values(operation, tokens - m * operation, m)
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name zero, the likeliest value of an expression.

        What is seen of one may favour another number, so this is a lower bound.
        """
        return at * 0

    def _sum(self, inputs: Tensor) -> Tensor:
        total = (inputs * (inputs < self.modulus)).sum(1, keepdim=True) % self.modulus
        return total.expand_as(inputs)
