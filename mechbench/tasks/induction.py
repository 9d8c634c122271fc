"""Induction: repeat what followed the first occurrence of the special token.

One example with V = 10 (numbers 1 to 8, `=>` = 9), L = 8 and induction_len = 2:

    position   0  1  2  3  4  5  6  7  8  9
    inputs     3  1  => 6  2  8  1  4  => 6
    targets    .  .  .  .  .  .  .  .  6  2

L uniform numbers, one of which is overwritten by `=>` at a position uniform in [0, L - 1 -
induction_len). The sequence ends with `=>` and the induction_len tokens that followed the first
`=>`. With n_triggers above 1, half the examples draw that many positions; each is kept if it lies
more than induction_len after the last one kept, and all are followed by the same tokens. Source: Fu
et al. 2023 (H3), section 3, and Poli et al. 2023, section 4.1, exactly as in the released
synthetics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.shortcuts import after_match, backing_off

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "induction",
    source="Fu et al. 2023 (H3), section 3; Poli et al. 2023, section 4.1",
    measures="recall",
)
@dataclass(frozen=True)
class Induction(Task):
    """Induction head: repeat the tokens that followed the special token before.

    Attributes:
        vocab_size: V: the specials `.` (0, unused) and `=>` (V-1), and V-2 numbers.
        seqlen: L, tokens before the final `=>`; a model reads L + induction_len tokens.
        induction_len: tokens to repeat.
        n_triggers: positions drawn for `=>` in half of the examples; the others draw one.

    Raises:
        ConfigError: vocab_size below 4, induction_len or n_triggers below 1.
        SeqlenError: seqlen below induction_len + 2.
    """

    vocab_size: int
    seqlen: int
    induction_len: int = 1
    n_triggers: int = 1

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 20, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: induction needs at least 4 "
                "(two specials, two numbers)"
            )
        for name in ("induction_len", "n_triggers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.seqlen < self.induction_len + 2:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: induction of {self.induction_len} token(s) needs at "
                f"least {self.induction_len + 2}"
            )

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the numbers, `=>`, and all but the last token to repeat."""
        return self.seqlen + self.induction_len

    @property
    def chance(self) -> float:
        """A uniform guess among the numbers: 1 / (V - 2)."""
        return 1.0 / (self.vocab_size - 2)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The number seen most often, the last one, and what followed the same token or two."""
        frequent = self._most_frequent
        rules: dict[str, Callable[[Tensor], Tensor]]
        rules = {"most frequent number": frequent, "last number": self._last}
        two, one = (
            partial(after_match, length=length, low=1, high=self.vocab_size - 1)
            for length in (2, 1)
        )
        if self.induction_len > 1:  # with one token to repeat that solves the task
            rules["behind the same token"] = backing_off(one, frequent)
            rules["behind the same two tokens"] = backing_off(two, one, frequent)
        else:
            rules["behind the same two tokens"] = backing_off(two, frequent)
        return rules

    @property
    def easiest_seqlen(self) -> int:
        """Short enough that one token in 32 matters, long enough to hold the tokens to repeat."""
        return max(32, 1 << (4 * self.induction_len - 1).bit_length())

    def describe(self, token: int) -> str:
        """Return the number, `.` or `=>`."""
        return {0: ".", self.vocab_size - 1: "=>"}.get(token, str(token))

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + induction_len) examples on the generator's device."""
        import torch

        B, L, k = batch_size, self.seqlen, self.induction_len
        special, device = self.vocab_size - 1, generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        numbers = draw(1, special, B, L)
        drawn = draw(0, L - 1 - k, B, self.n_triggers)
        starts = drawn.sort(1).values
        several = draw(0, 2, B) == 1
        first = last = torch.where(several, starts[:, 0], drawn[:, 0])
        ahead = torch.arange(1, k + 1, device=device)  # (k,)
        copied = numbers.gather(1, first[:, None] + ahead)  # (B, k)
        block = torch.cat([torch.full_like(first, special)[:, None], copied], 1)  # (B, 1 + k)
        inputs = torch.cat([numbers, block[:, :-1]], 1)  # (B, L + k)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, L:] = copied
        dense = targets.clone()
        whole = torch.arange(k + 1, device=device)
        for trigger in range(self.n_triggers):  # a handful; the loop never runs over tokens
            start = starts[:, trigger]
            keep = several & (start - last > k)
            start = torch.where(keep, start, first)  # a dropped one rewrites the first: no change
            inputs.scatter_(1, start[:, None] + whole, block)
            again = torch.where(keep[:, None], copied, IGNORE)
            dense.scatter_(1, start[:, None] + whole[:-1], again)
            last = torch.where(keep, start, last)
        return Batch(inputs, targets, dense)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Read what stood as far after the first `=>` as the answer does after the latest one."""
        import torch

        position = torch.arange(inputs.shape[1], device=inputs.device)
        trigger = inputs == self.vocab_size - 1
        latest = torch.where(trigger, position, UNKNOWN).cummax(1).values
        first = trigger.int().argmax(1, keepdim=True)
        ahead = position - latest
        source = first + 1 + ahead
        known = (latest > first) & (ahead < self.induction_len)
        return torch.where(known, inputs.gather(1, source * known), UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Assume that the window begins within the tokens to repeat: the longest overlap that fits.

        A match one token longer is V - 2 times as likely to be the real overlap as to be chance.
        """
        import torch

        W, latest_start = inputs.shape[1], self.seqlen - 2 - self.induction_len
        repeated = at - self.seqlen  # tokens shown after the last `=>`
        guess = torch.full_like(at, UNKNOWN)
        for overlap in range(min(W - 1, int(repeated.max())), -1, -1):
            # The token to name stands `overlap` positions after the window's first token.
            trigger = at - W - repeated + overlap  # position of the first `=>`
            fits = (repeated >= overlap) & (repeated < W)
            fits &= (trigger >= 0) & (trigger <= latest_start)
            fits &= (inputs[:, :overlap] == inputs[:, W - overlap :]).all(1)
            guess = torch.where((guess == UNKNOWN) & fits, inputs[:, overlap], guess)
        return guess

    def _most_frequent(self, inputs: Tensor) -> Tensor:
        import torch

        seen = inputs[:, : self.seqlen]
        counts = torch.zeros(len(inputs), self.vocab_size, device=inputs.device)
        counts.scatter_add_(1, seen, torch.ones_like(seen, dtype=counts.dtype))
        return counts[:, :-1].argmax(1, keepdim=True).expand_as(inputs)

    def _last(self, inputs: Tensor) -> Tensor:
        return inputs[:, self.seqlen - 1 : self.seqlen].expand_as(inputs)
