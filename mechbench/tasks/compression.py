"""Compression: repeat a whole sequence, token by token, once it has ended.

One example with V = 8 (data 0 to 6, `=>` = 7) and L = 5:

    position   0  1  2  3  4  5  6  7
    inputs     3  0  6  3  => => => =>
    targets    .  .  .  .  3  0  6  3

An example is L - 1 uniform tokens, then `=>` L - 1 times; the targets at the `=>` are the tokens in
order. Source: Poli et al. 2024 (MAD), section 3.1 and appendix B; its axes are V 32, 64, 128 and L
64, 128, 256.

A major deviation: MAD feeds an MLP only the state at the first `=>` and a position, so that the
whole sequence must fit into d_model numbers. A causal language model has no such bottleneck. Here
an operator with a bounded state has to compress, but attention may look the tokens up and a long
convolution may delay them by L - 1. So accuracies are not comparable with MAD's, and solving the
task shows that an operator can hold or reach L - 1 tokens, not that it compresses them.
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


@register_task("compression", source="Poli et al. 2024 (MAD), section 3.1", measures="copying")
@dataclass(frozen=True)
class Compression(Task):
    """Compression: repeat a whole random sequence after its end.

    Attributes:
        vocab_size: V: V - 1 data tokens and `=>` (V-1).
        seqlen: L: the data tokens and the first `=>`; a model reads 2 (L - 1) tokens.

    Raises:
        ConfigError: vocab_size below 3.
        SeqlenError: seqlen below 2.
    """

    vocab_size: int
    seqlen: int

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 16, "seqlen": 32}

    def __post_init__(self) -> None:
        if self.vocab_size < 3:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: compression needs at least 3 "
                "(two data tokens, =>)"
            )
        if self.seqlen < 2:
            raise SeqlenError(f"seqlen is {self.seqlen}: compression needs at least 2")

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the data tokens and an equal number of `=>`."""
        return 2 * (self.seqlen - 1)

    @property
    def chance(self) -> float:
        """A uniform guess among the data tokens: 1 / (V - 1)."""
        return 1.0 / (self.vocab_size - 1)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent data token, and the last one."""
        low, high = 0, self.vocab_size - 1
        return {
            "most frequent token": partial(most_frequent, low=low, high=high),
            "last token": partial(latest, low=low, high=high),
        }

    def describe(self, token: int) -> str:
        """Return the number, or `=>`."""
        return "=>" if token == self.vocab_size - 1 else str(token)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, 2 (L - 1)) examples on the generator's device."""
        import torch

        shape = (batch_size, self.seqlen - 1)
        data = torch.randint(
            self.vocab_size - 1, shape, generator=generator, device=generator.device
        )
        inputs = torch.cat([data, torch.full_like(data, self.vocab_size - 1)], 1)
        targets = torch.cat([torch.full_like(data, IGNORE), data], 1)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """At every `=>`, read the token L - 1 places back."""
        import torch

        answers = torch.full_like(inputs, UNKNOWN)
        lag = self.seqlen - 1
        asked = inputs[:, lag:] == self.vocab_size - 1
        answers[:, lag:] = torch.where(asked, inputs[:, :-lag], UNKNOWN)
        return answers
