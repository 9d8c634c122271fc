"""N-gram lookup: repeat what followed a few letters of a string.

One example with V = 6 (letters a to e = 0 to 4, `|` = 5), L = 7, n = 2 and n_answer = 2:

    position   0  1  2  3  4  5  6  7  8  9 10
    inputs     d  a  b  a  c  a  e  |  b  a  c
    targets    .  .  .  .  .  .  .  .  .  c  a

A string of L uniform letters, `|`, n letters in a row of the string and the n_answer letters that
followed them there. The n-gram is uniform over the places of those that occur once in the string
and are followed by n_answer letters. Where there is none, one is planted: each of one uniform
letter is replaced by a uniform one of the others, and the letter put back at one uniform place,
where the n-gram begins. Source: Jelassi et al. 2024 (arXiv:2402.01032), the suffix key variant,
with 26 letters; the end of an example that is scored there, `.`, is left out.

The released generator finds n-grams that occur once but then draws from all, and looks for no
second place among the string's last letters: there the answer may be ambiguous. Here it never is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.letters import letter
from mechbench.tasks.shortcuts import after_match, backing_off, latest, most_frequent
from mechbench.tasks.unseen import least_unseen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges


@register_task(
    "ngram-lookup",
    source="Jelassi et al. 2024 (arXiv:2402.01032), suffix keys",
    measures="copying",
)
@dataclass(frozen=True)
class NgramLookup(Task):
    """N-gram lookup: repeat the letters that followed a few letters of a string.

    Attributes:
        vocab_size: V: V - 1 letters and `|` (V-1).
        seqlen: L, letters of the string; a model reads L + n + n_answer tokens.
        n: letters to look up.
        n_answer: letters to answer with.

    Raises:
        ConfigError: vocab_size below 4, n or n_answer out of range.
        SeqlenError: seqlen below n + n_answer.
    """

    vocab_size: int
    seqlen: int
    n: int = 2
    n_answer: int = 1

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 27, "seqlen": 64}

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: ngram-lookup needs at least 4 "
                "(`|`, three letters)"
            )
        most = int(62 / math.log2(self._n_letters))  # n-grams are numbered in 64 bits
        if not 1 <= self.n <= most:
            raise ConfigError(
                f"n is {self.n}: expected 1 to {most} at vocab_size {self.vocab_size}"
            )
        if self.n_answer < 1:
            raise ConfigError(f"n_answer is {self.n_answer}: expected at least 1")
        if self.seqlen < self.n + self.n_answer:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: ngram-lookup with n {self.n} and n_answer "
                f"{self.n_answer} needs at least {self.n + self.n_answer}"
            )

    @property
    def _n_letters(self) -> int:
        return self.vocab_size - 1

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the string, `|`, the n-gram, and all but the answer's last one."""
        return self.seqlen + self.n + self.n_answer

    @property
    def chance(self) -> float:
        """A uniform guess among the letters: 1 / (V - 1)."""
        return 1.0 / self._n_letters

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent letter, the latest, and what last followed the last one, two, ...

        That is up to n - 1 letters; up to n if more than one is to be named.
        """
        low, high = 0, self._n_letters
        frequent = partial(most_frequent, low=low, high=high)
        rules: dict[str, Callable[[Tensor], Tensor]] = {
            "most frequent letter": frequent,
            "latest letter": partial(latest, low=low, high=high),
        }
        for length in range(1, self.n + (self.n_answer > 1)):
            behind = partial(after_match, length=length, low=low, high=high)
            many = f"{length} letters" if length > 1 else "letter"
            rules[f"behind the same {many}"] = backing_off(behind, frequent)
        return rules

    @property
    def easiest_seqlen(self) -> int:
        """A string in which a letter tells much; it holds the n-gram and the answer."""
        return max(32, 1 << (self.n + self.n_answer).bit_length())

    def describe(self, token: int) -> str:
        """Return the letter, or `|`."""
        return "|" if token == self._n_letters else letter(token)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + n + n_answer) examples on the generator's device."""
        import torch

        B, L, n, A = batch_size, self.seqlen, self.n, self._n_letters
        n_places = L - n - self.n_answer + 1  # where an n-gram may begin
        device = generator.device

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        letters, other = draw(A, B, L), draw(A - 1, B, L)
        rank, place, unique = draw(_RANGE, B, 1), draw(n_places, B, 1), draw(A, B, 1)
        ids = sum(letters[:, j : L - n + 1 + j] * A ** (n - 1 - j) for j in range(n))
        order = torch.sort(torch.as_tensor(ids), dim=1, stable=True)
        edge = torch.nn.functional.pad(order.values.diff(dim=1) != 0, (1, 1), value=True)
        once = edge[:, 1:] & edge[:, :-1] & (order.indices < n_places)
        rank_of = once.cumsum(1)
        count = rank_of[:, -1:]
        # The chosen one's rank, with a bias below L / 2^24; behind the last if there is none.
        chosen = (rank_of <= rank % count.clamp_min(1)).sum(1, keepdim=True)
        at = order.indices.gather(1, chosen.clamp_max(L - n))
        planted = torch.where(letters == unique, (unique + 1 + other) % A, letters)
        planted.scatter_(1, place, unique)
        letters = torch.where(count > 0, letters, planted)
        at = torch.where(count > 0, at, place)

        asked = letters.gather(1, at + torch.arange(n + self.n_answer, device=device))
        inputs = torch.cat([letters, torch.full_like(at, A), asked[:, :-1]], 1)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, L + n :] = asked[:, n:]
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Find the n-gram behind the `|` among the visible letters before it."""
        import torch

        W, n = inputs.shape[1], self.n
        bar = inputs == self._n_letters
        at = bar.int().argmax(1, keepdim=True)  # (B, 1)
        column = torch.arange(W, device=inputs.device)
        same = (column + n < at) & bar.any(1, keepdim=True) & (at + n < W)
        for j in range(n):
            asked = inputs.gather(1, (at + 1 + j).clamp_max(W - 1))
            ahead = inputs[:, j:]
            same[:, : W - j] &= ahead == asked
        found = same.int().argmax(1, keepdim=True)
        ahead = column - at - 1  # the n-th letter behind the `|` is the answer's first
        source = found + ahead + 1
        known = same.any(1, keepdim=True) & (ahead >= n - 1) & (source < at)
        return torch.where(known, inputs.gather(1, source.clamp(0, W - 1)), UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Assume that the window begins within what is looked up: the longest overlap that fits.

        A match one letter longer is V - 1 times as likely to be the real one as to be chance. Where
        none fits, a letter behind the `|` is no good guess: a a is not followed by a, or it would
        occur twice.
        """
        import torch

        W, L = inputs.shape[1], self.seqlen
        begin = at + 1 - W
        seen = at - L  # letters of the n-gram and the answer that the window ends with
        guess = torch.full_like(at, UNKNOWN)
        for left in range(min(W - 1, self.n + self.n_answer - 2), -1, -1):
            fits = (begin > 0) & (begin + left < L) & (seen > left) & (seen < W)
            fits &= begin + left - seen >= 0
            fits &= (inputs[:, :left] == inputs[:, W - left :]).all(1)
            guess = torch.where((guess == UNKNOWN) & fits, inputs[:, left], guess)
        behind = torch.arange(W, device=inputs.device) >= W - seen[:, None]
        other = least_unseen(torch.where(behind, inputs, UNKNOWN), 0, self._n_letters)
        return torch.where(guess == UNKNOWN, other, guess)
