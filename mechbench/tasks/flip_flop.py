"""Flip-flop: read the bit that was written last, however much is to be ignored since.

One example with L = 10 (w writes the bit behind it, i has it ignored, r reads it):

    position  0  1  2  3  4  5  6  7  8
    inputs    w  1  i  0  r  1  i  0  r
    targets   .  .  .  .  1  .  .  .  1

Even positions hold an instruction: the first is w, the last r, the others i with probability
p_ignore, w and r with half of the rest each. Behind w and i stands a uniform bit, behind r the one
that was last written, and that is scored; the bit behind the last r is not among the inputs. A test
set may have another p_ignore than training, `tested_p_ignore`: rare writes and reads ask for memory
over long distances, frequent ones for forgetting. Source: Liu et al. 2023 (arXiv:2306.00946),
section 3, who train at p = 0.8 and L = 512, and test at 0.98 and 0.1 too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.shortcuts import backing_off, latest, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_WRITE, _READ, _SKIP = 2, 3, 4  # tokens; the bits are 0 and 1


@register_task(
    "flip-flop", source="Liu et al. 2023 (arXiv:2306.00946), section 3", measures="state tracking"
)
@dataclass(frozen=True)
class FlipFlop(Task):
    """Flip-flop: name the bit that was written last.

    Attributes:
        vocab_size: V, at least 5: the bits 0 and 1, then w, r and i; the others are not used.
        seqlen: L, even: instructions and their bits; a model reads all but the last bit.
        p_ignore: probability that an instruction is i.
        tested_p_ignore: the same of the test set; None for that of training.

    Raises:
        ConfigError: vocab_size below 5, or a probability outside [0, 1].
        SeqlenError: seqlen odd or below 4.
    """

    vocab_size: int
    seqlen: int
    p_ignore: float = 0.8
    tested_p_ignore: float | None = None

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 5, "seqlen": 512}

    def __post_init__(self) -> None:
        if self.vocab_size < 5:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: flip-flop needs at least 5 (two bits, three "
                "instructions)"
            )
        if self.seqlen < 4 or self.seqlen % 2:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: flip-flop needs an even number from 4 on; the nearest "
                f"is {max(4, self.seqlen + self.seqlen % 2)}"
            )
        for name in ("p_ignore", "tested_p_ignore"):
            p = getattr(self, name)
            if p is not None and not 0 <= p <= 1:
                raise ConfigError(f"{name} is {p}: expected 0 to 1")

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: all but the bit behind the last r."""
        return self.seqlen - 1

    @property
    def chance(self) -> float:
        """A uniform guess between the bits."""
        return 0.5

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last bit, ignored or not, the most frequent one, the first, and what is told late."""
        last, lately = partial(latest, low=0, high=2), partial(self._reach, window=16)
        return {
            "last bit": last,
            "most frequent bit": partial(most_frequent, low=0, high=2),
            "first written bit": lambda inputs: inputs[:, 1:2].expand_as(inputs),
            "bit told in the last 16 tokens": backing_off(lately, last),
        }

    @property
    def easiest_seqlen(self) -> int:
        """Short enough that a read is rarely far from its write."""
        return 32

    def easier(self, seqlen: int) -> FlipFlop:
        """Return the task at a shorter length, the next even one."""
        return dataclasses.replace(self, seqlen=seqlen + seqlen % 2)

    def tested(self) -> FlipFlop:
        """Return the task with the test set's share of what is to be ignored."""
        if self.tested_p_ignore is None:
            return self
        return dataclasses.replace(self, p_ignore=self.tested_p_ignore, tested_p_ignore=None)

    def describe(self, token: int) -> str:
        """Return the bit or the letter of the instruction; of what is not used the number."""
        return {_WRITE: "w", _READ: "r", _SKIP: "i"}.get(token, str(token))

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L - 1) examples on the generator's device."""
        import torch

        B, N, device = batch_size, self.seqlen // 2, generator.device
        u = torch.rand(B, N, generator=generator, device=device)
        act = torch.where(u < (1 + self.p_ignore) / 2, _WRITE, _READ)
        act = torch.where(u < self.p_ignore, _SKIP, act)
        act[:, 0], act[:, -1] = _WRITE, _READ
        drawn = torch.randint(2, (B, N), generator=generator, device=device)
        written = torch.where(act == _WRITE, torch.arange(N, device=device), 0).cummax(1).values
        reads = act == _READ
        bits = torch.where(reads, drawn.gather(1, written), drawn)
        inputs = torch.stack([act, bits], 2).flatten(1)[:, :-1].contiguous()
        targets = torch.full_like(inputs, IGNORE)
        targets[:, ::2] = torch.where(reads, bits, IGNORE)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Name the bit behind the last w or r, which shows what was written as well."""
        return self._reach(inputs, inputs.shape[1])

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name a bit that the window begins with: what stood before it may have been w or r."""
        import torch

        return torch.where(inputs[:, 0] < 2, inputs[:, 0], UNKNOWN)

    def _reach(self, inputs: Tensor, window: int) -> Tensor:
        """Answer as the oracle where what tells is among the last `window` tokens, else -1."""
        import torch

        before = torch.nn.functional.pad(inputs, (1, 0), value=_SKIP)[:, :-1]
        tells = (inputs < 2) & ((before == _WRITE) | (before == _READ))
        position = torch.arange(inputs.shape[1], device=inputs.device)
        at = torch.where(tells, position, -1).cummax(1).values
        told = (inputs == _READ) & (at >= 0) & (position - at < window)
        return torch.where(told, inputs.gather(1, at.clamp_min(0)), UNKNOWN)
