"""Even pairs: is the number of unequal neighbours even?

One example with L = 5 letters, of which 4 are used, as min_seqlen allows:

    position  0  1  2  3  4  5
    inputs    1  0  0  1  =  0
    targets   .  .  .  .  1  .

Uniform bits, then `=`, at which the answer is due: 1 if the number of neighbours 01 and 10 is even,
which is to say if the first bit is the last, else 0. Behind it stands padding, which is bit 0 and
asks for nothing. Source: Deletang et al. 2022 (arXiv:2207.02098), "even pairs".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.tasks.marked import MarkedBits

if TYPE_CHECKING:
    from torch import Tensor


@register_task(
    "even-pairs", source="Deletang et al. 2022 (arXiv:2207.02098)", measures="state tracking"
)
@dataclass(frozen=True)
class EvenPairs(MarkedBits):
    """Even pairs: say whether the number of unequal neighbours is even.

    Attributes:
        vocab_size: V, at least 3: the bits 0 and 1, which are the answers too, and `=`; the others
            are not used.
        seqlen: L, most bits of an example; a model reads L + 1 tokens.
        min_seqlen: fewest bits; 0 for L alone.

    Raises:
        ConfigError: vocab_size below 3, or min_seqlen outside [2, seqlen].
        SeqlenError: seqlen below 2.
    """

    vocab_size: int
    seqlen: int
    min_seqlen: int = 0

    version: ClassVar[int] = 1
    shortest: ClassVar[int] = 2
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 3, "seqlen": 40}

    def __post_init__(self) -> None:
        self.check_sizes("even-pairs")

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last bit, and whether the last two are the same."""
        return {"last bit": self._last_bit, "last two bits are the same": self._last_two}

    def answers(self, symbols: Tensor) -> Tensor:
        """Return whether each bit is the first one."""
        return (symbols == symbols[:, :1]).long()

    def _last_bit(self, inputs: Tensor) -> Tensor:
        return self.at_mark(inputs, inputs)

    def _last_two(self, inputs: Tensor) -> Tensor:
        before = inputs.roll(1, 1)  # of the first bit nothing is asked
        return self.at_mark(inputs, (inputs == before).long())
