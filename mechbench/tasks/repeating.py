"""What copying forwards and backwards share: a string, `|`, and the string once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.first_occurrence import first_occurrence
from mechbench.tasks.lengths import check_min_seqlen, draw_lengths
from mechbench.tasks.letters import letter
from mechbench.tasks.shortcuts import backing_off, latest, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Repeating(Task):
    """A task of tokens `.` (0), letters 1 to V - 3, `$` (V-2) and `|` (V-1); `$ s | answer .`."""

    name: ClassVar[str]
    backwards: ClassVar[bool]

    def check(self) -> None:
        """Check the sizes.

        Raises:
            ConfigError: vocab_size below 5, or min_seqlen out of range.
            SeqlenError: seqlen below 1.
        """
        if self.vocab_size < 5:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: {self.name} needs at least 5 "
                "(three specials, two letters)"
            )
        if self.seqlen < 1:
            raise SeqlenError(f"seqlen is {self.seqlen}: {self.name} needs at least 1")
        check_min_seqlen(self.min_seqlen, self.seqlen, least=1)

    @property
    def _n_letters(self) -> int:
        return self.vocab_size - 3

    @property
    def _bar(self) -> int:
        return self.vocab_size - 1

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: `$`, the string, `|`, and all but the last letter of the answer."""
        return 2 * self.seqlen + 1

    @property
    def chance(self) -> float:
        """A uniform guess among the letters: 1 / (V - 3)."""
        return 1.0 / self._n_letters

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent letter, the latest, and what is next to the same letter, or two, in s.

        "Next to" is behind the first such place, or for a reversed answer before the last one.
        """
        low, high = 1, self.vocab_size - 2
        frequent = partial(most_frequent, low=low, high=high)
        one, two = (partial(self._next_to_same, length=length) for length in (1, 2))
        return {
            "most frequent letter": frequent,
            "latest letter": partial(latest, low=low, high=high),
            "next to the same letter": backing_off(one, frequent),
            "next to the same two letters": backing_off(two, one, frequent),
        }

    @property
    def easiest_seqlen(self) -> int:
        """A string short enough that one letter tells most places."""
        return 16

    def describe(self, token: int) -> str:
        """Return `.`, the letter, `$` or `|`."""
        return {0: ".", self.vocab_size - 2: "$", self._bar: "|"}.get(token) or letter(token - 1)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, 2 L + 1) examples on the generator's device."""
        import torch

        B, L, device = batch_size, self.seqlen, generator.device
        letters = torch.randint(1, self.vocab_size - 2, (B, L), generator=generator, device=device)
        if not self.min_seqlen:
            answer = letters.flip(1) if self.backwards else letters
            ends = [
                letters.new_full((B, 1), self.vocab_size - 2),
                letters.new_full((B, 1), self._bar),
            ]
            inputs = torch.cat([ends[0], letters, ends[1], answer[:, :-1]], 1)
            targets = torch.cat([letters.new_full((B, L + 1), IGNORE), answer], 1)
            return Batch(inputs, targets, targets)
        n = draw_lengths(B, self.min_seqlen, L, generator)
        ahead = torch.arange(2 * L + 1, device=device) - n - 1  # (B, L_in), 0 at the `|`
        at = (n - 1 - ahead if self.backwards else ahead).clamp(0, L - 1)
        scored = (ahead >= 0) & (ahead < n)
        targets = torch.where(scored, letters.gather(1, at), IGNORE)
        inputs = torch.zeros_like(targets)
        inputs[:, 1 : L + 1] = letters
        inputs[:, 0] = self.vocab_size - 2
        shown = (ahead > 0) & (ahead < n)
        inputs[:, 1:] = torch.where(
            shown[:, 1:], targets[:, :-1], inputs[:, 1:] * (ahead < 0)[:, 1:]
        )
        inputs.scatter_(1, n + 1, self._bar)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Count from the `|` back; forwards that takes the string's length too.

        The length is known if it does not vary, or if the string's begin is visible.
        """
        import torch

        column = torch.arange(inputs.shape[1], device=inputs.device)
        bar = inputs == self._bar
        at = bar.int().argmax(1, keepdim=True)  # (B, 1)
        ahead = column - at
        if self.backwards:
            source, known = at - 1 - ahead, ahead >= 0
        else:
            whole = inputs[:, :1] == self.vocab_size - 2
            begin = torch.where(whole, 1, at - self.seqlen)
            sure = whole | (at == self.seqlen) | (self.min_seqlen in (0, self.seqlen))
            source, known = begin + ahead, (ahead >= 0) & sure
        known = known & bar.any(1, keepdim=True) & (source >= 0) & (source < at)
        found = inputs.gather(1, source.clamp(0, inputs.shape[1] - 1))
        is_letter = (found > 0) & (found < self.vocab_size - 2)
        return torch.where(known & is_letter, found, UNKNOWN)

    def _next_to_same(self, inputs: Tensor, length: int) -> Tensor:
        """Return (B, L_in): the answer if s held the last `length` letters only once, else -1."""
        import torch

        L, V = inputs.shape[1], self.vocab_size
        string = inputs.masked_fill((inputs == self._bar).cumsum(1) > 0, 0)
        both = torch.cat([string.flip(1) if self.backwards else string, inputs], 1)
        key = both.clone()
        for back in range(1, length):
            key[:, back:] = key[:, back:] * V + both[:, :-back]
        first = first_occurrence(key)
        answer = both.gather(1, first + (first < 2 * L - 1))
        fits = (answer > 0) & (answer < V - 2) & (first < L - 1)
        return torch.where(fits, answer, UNKNOWN)[:, L:]
