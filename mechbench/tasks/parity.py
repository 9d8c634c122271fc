"""Parity: is the number of ones odd?

One example with L = 5 letters, of which 4 are used, as min_seqlen allows:

    position  0  1  2  3  4  5
    inputs    1  0  1  1  =  0
    targets   .  .  .  .  1  .

Uniform bits, then `=`, at which the answer is due: 1 if the number of ones is odd. Behind it stands
padding, which is bit 0 and asks for nothing. Source: Deletang et al. 2022 (arXiv:2207.02098),
"parity check", and the protocol of xLSTM (arXiv:2405.04517): trained at lengths 3 to 40, tested up
to 256.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.tasks.marked import MarkedBits, of_the_last

if TYPE_CHECKING:
    from torch import Tensor


@register_task(
    "parity", source="Deletang et al. 2022 (arXiv:2207.02098)", measures="state tracking"
)
@dataclass(frozen=True)
class Parity(MarkedBits):
    """Parity: say whether the number of ones is odd.

    Attributes:
        vocab_size: V, at least 3: the bits 0 and 1, which are the answers too, and `=`; the others
            are not used.
        seqlen: L, most bits of an example; a model reads L + 1 tokens.
        min_seqlen: fewest bits; 0 for L alone.

    Raises:
        ConfigError: vocab_size below 3, or min_seqlen outside [1, seqlen].
        SeqlenError: seqlen below 1.
    """

    vocab_size: int
    seqlen: int
    min_seqlen: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 3, "seqlen": 40}

    def __post_init__(self) -> None:
        self.check_sizes("parity")

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last bit, the bit seen more often, and the parity of the last eight."""
        return {
            "last bit": partial(self._of_the_last, count=1),
            "parity of the last 8 bits": partial(self._of_the_last, count=8),
            "more ones than zeros": self._more_ones,
        }

    def answers(self, symbols: Tensor) -> Tensor:
        """Return whether the ones are odd in number, up to each position."""
        return (symbols == 1).cumsum(1) % 2

    def _of_the_last(self, inputs: Tensor, count: int) -> Tensor:
        return self.at_mark(inputs, of_the_last((inputs == 1).long(), count) % 2)

    def _more_ones(self, inputs: Tensor) -> Tensor:
        sign = 2 * (inputs == 1).long() - 1
        return self.at_mark(inputs, (sign.cumsum(1) > 0).long())
