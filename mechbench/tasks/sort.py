"""Sort: repeat tokens in ascending order.

One example with V = 8 (padding `.` = 0, numbers 1 to 6, `=>` = 7), L = 5 and a length of 4:

    position   0  1  2  3  4  5  6  7  8  9
    inputs     5  2  6  2  => 2  2  5  .  .
    targets    .  .  .  .  2  2  5  6  .  .

Numbers are uniform and may repeat; behind `=>` stands their sorted order, of which a model that
names one number has read those before it. Lengths are uniform from min_seqlen to L, or all L, and
padding follows. Source: Deletang et al. 2022, arXiv:2207.02098 ("bucket sort"), whose models read
blanks in place of the sorted numbers. The accuracy of repeating the last number grows with L / V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.lengths import check_min_seqlen, draw_lengths
from mechbench.tasks.shortcuts import latest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TERMS = 64  # if so many of a falling series have not made it small, its sum is large


@register_task(
    "sort", source="Deletang et al. 2022, arXiv:2207.02098 (bucket sort)", measures="copying"
)
@dataclass(frozen=True)
class Sort(Task):
    """Sort: repeat the numbers in ascending order.

    Attributes:
        vocab_size: V: padding (0), V - 2 numbers and `=>` (V-1).
        seqlen: L, most numbers to sort; a model reads 2 L tokens.
        min_seqlen: fewest numbers; 0 for L alone.

    Raises:
        ConfigError: vocab_size below 4, or min_seqlen out of range.
        SeqlenError: seqlen below 2.
    """

    vocab_size: int
    seqlen: int
    min_seqlen: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 66, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: sort needs at least 4 (padding, two numbers, =>)"
            )
        if self.seqlen < 2:
            raise SeqlenError(f"seqlen is {self.seqlen}: sort needs at least 2")
        check_min_seqlen(self.min_seqlen, self.seqlen, 2)

    @property
    def _largest(self) -> int:
        return self.vocab_size - 2

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the numbers, `=>`, and all but the last sorted number."""
        return 2 * self.seqlen

    @property
    def chance(self) -> float:
        """A uniform guess among the numbers: 1 / (V - 2)."""
        return 1.0 / self._largest

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last number again, the next one, and the number that is expected at that place."""
        return {
            "the last number": partial(latest, low=1, high=self.vocab_size - 1),
            "the next number": lambda inputs: inputs + 1,
            "place in the order": self._by_place,
        }

    @property
    def easiest_seqlen(self) -> int:
        """Every number is asked for, so that a few are enough to begin with."""
        return 16

    def describe(self, token: int) -> str:
        """Return the number, `.` or `=>`."""
        return {0: ".", self.vocab_size - 1: "=>"}.get(token, str(token))

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, 2 L) examples on the generator's device."""
        import torch

        B, L, mark = batch_size, self.seqlen, self.vocab_size - 1
        device = generator.device
        n = draw_lengths(B, self.min_seqlen, L, generator)
        numbers = torch.randint(1, mark, (B, L), generator=generator, device=device)
        place = torch.arange(2 * L, device=device)
        numbers = torch.where(place[:L] < n, numbers, mark)
        ordered = numbers.sort(1).values
        behind = place - n
        answers = ordered.gather(1, behind.clamp(0, L - 1))  # from `=>` on
        shown = torch.nn.functional.pad(answers, (1, 0))[:, :-1]
        first = torch.nn.functional.pad(numbers, (0, L))
        inputs = torch.where(behind <= 0, torch.where(behind < 0, first, mark), shown)
        inputs = torch.where(behind < n, inputs, 0)
        targets = torch.where((behind >= 0) & (behind < n), answers, IGNORE)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Sort what stands before `=>`.

        In a window, the least visible number that was not named yet is sure if none is less than
        it, if the last one named is as large, or if every hidden one was named.
        """
        import torch

        length, mark = inputs.shape[1], self.vocab_size - 1
        if length == self.input_seqlen:
            place = torch.arange(length, device=inputs.device)
            behind = place - (inputs == mark).int().argmax(1, keepdim=True)
            ordered = torch.where(behind < 0, inputs, mark).sort(1).values
            answers = ordered.gather(1, behind.clamp_min(0))
            return torch.where((behind >= 0) & (answers < mark), answers, UNKNOWN)
        answers = torch.full_like(inputs, UNKNOWN)
        cut, last, least, _, named = self._seen(inputs)
        # Of at most L numbers, `least` tells nothing where `=>` is cut off.
        sure = (least <= last.clamp_min(1)) | (~cut & (named == self.seqlen))
        told = torch.where(sure, least, UNKNOWN)
        answers[:, -1] = torch.where(last == self._largest, last, told)
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the likeliest number, given that the hidden ones are uniform.

        Those not yet named are at least the last one named, v: they hold it again, or else the next
        is the least of them and of the visible ones above v. Two things are not exact, both without
        `=>` in the window: if v alone fills it, v is taken to have occurred no more often; and
        where lengths vary, the length is taken to be that which v's place in the order suggests.
        """
        import torch

        cut, last, least, said, named = self._seen(inputs)
        shown = inputs.shape[1] - 1 - (inputs == self.vocab_size - 1).int().argmax(1)
        length = (at * self._largest / (self._largest + last)).round().long()
        length = length.clamp(self.min_seqlen or self.seqlen, self.seqlen)
        left = (2 * length - at).clamp_min(1)
        hidden = torch.where(cut, left, at - shown - named)  # and not named
        above = (self._largest - last).clamp_min(1)
        # v is `said` hidden ones, or with P proportional to the n-th term it is n more.
        n = torch.arange(1, _TERMS + 1, device=inputs.device)
        ratio = (hidden[:, None] - n + 1).clamp_min(0) / (said[:, None] + n) / above[:, None]
        p_over = 1 / (1 + ratio.double().cumprod(1).sum(1))
        p_over = torch.where(last == 0, 1, p_over)
        p_next = 1 - (1 - 1 / above.double()) ** hidden
        p_next = torch.where(least == last + 1, 1, p_next)
        p_least = ((self._largest - least + 1) / above.double()) ** hidden
        score = torch.stack([1 - p_over, p_over * p_next, p_over * p_least], 1)
        choice = torch.stack([last, last + 1, least], 1)
        return choice.gather(1, score.argmax(1, keepdim=True))[:, 0]

    def _seen(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return what a window shows, (B,) each.

        Returns:
            Whether `=>` is cut off; the last number named, 0 for none; the least visible one not
            named, V - 1 for none; how often the last one was named beyond the visible ones; and how
            many numbers are visible, or hidden and named.
        """
        import torch

        place = torch.arange(inputs.shape[1], device=inputs.device)
        mark = inputs == self.vocab_size - 1
        cut = ~mark.any(1)
        start = torch.where(cut, -1, mark.int().argmax(1))[:, None]
        none = torch.zeros(len(inputs), self.vocab_size, dtype=torch.int64, device=inputs.device)
        visible = none.scatter_add(1, inputs, (place < start).long())
        named = none.scatter_add(1, inputs, (place > start).long())
        last = torch.where(mark[:, -1], 0, inputs[:, -1])
        number = torch.arange(self.vocab_size, device=inputs.device)
        least = torch.where(visible > named, number, self.vocab_size - 1).amin(1)
        beyond = (named - visible).clamp_min(0)
        said = beyond.gather(1, last[:, None])[:, 0]
        return cut, last, least, said, visible.sum(1) + beyond.sum(1)

    def _by_place(self, inputs: Tensor) -> Tensor:
        import torch

        place = torch.arange(inputs.shape[1], device=inputs.device)
        n = (inputs == self.vocab_size - 1).int().argmax(1, keepdim=True)
        return (2 * (place - n) + 1) * self._largest // (2 * n) + 1
