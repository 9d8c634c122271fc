"""Fuzzy recall: associative recall where keys and values are several tokens long.

One example with V = 16 (keys 0 to 6, values 7 to 14, padding `.` = 15), L = 18, key_len = 3 and
value_len = 3:

    position   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17
    inputs     .  .  .  .  .  3  0  5  9 12  1  2  6  8  3  0  5  9
    targets    .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  9 12

A key is key_len distinct key tokens, a value 1 to value_len distinct value tokens; a key has the
same value wherever it occurs. Keys are uniform. The example ends with an earlier key and all but
the last token of its value; padding fills the left. Where a key has occurred before, every token of
its value is scored, at the position before that token. Source: Poli et al. 2024 (MAD), section 3.1
and appendix B ("fuzzy in-context recall", multi-query); its axes are V 32, 64, 128 and L 256, 512,
1024.

Deviations: keys have their full size in training too (the release also trains on shorter ones,
which leaves open where a key ends, and tests on the full size); the last key is uniform over the
earlier pairs rather than inserted at a random place; no more pairs are added once the longest
possible one might not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch
from mechbench.tasks.cut_pair import cut_pair_guess
from mechbench.tasks.first_occurrence import first_occurrence
from mechbench.tasks.halves import Halves
from mechbench.tasks.shortcuts import (
    after_match,
    after_match_and_answers,
    backing_off,
    last_of_key,
    latest,
    most_frequent,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges


@register_task("fuzzy-recall", source="Poli et al. 2024 (MAD), section 3.1", measures="recall")
@dataclass(frozen=True)
class FuzzyRecall(Halves):
    """Fuzzy recall: name the tokens of a value by the tokens of its key.

    Attributes:
        vocab_size: V: key tokens and value tokens (half each), and padding (V-1).
        seqlen: L, tokens a model reads.
        key_len: tokens in a key.
        value_len: most tokens in a value.

    Raises:
        ConfigError: key_len or value_len out of range, or vocab_size too small for either.
        SeqlenError: seqlen below 2 (key_len + value_len) - 1.
    """

    vocab_size: int
    seqlen: int
    key_len: int = 3
    value_len: int = 3

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 16, "seqlen": 128}
    closing: ClassVar[str] = "."

    def __post_init__(self) -> None:
        for name in ("key_len", "value_len"):
            if not 1 <= getattr(self, name) <= 6:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 1 to 6")
        need = max(2 * self.key_len, 2 * self.value_len - 1) + 1
        if self.vocab_size < need:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: fuzzy-recall with key_len {self.key_len} and "
                f"value_len {self.value_len} needs at least {need}"
            )
        if self.seqlen < 2 * self._longest - 1:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: fuzzy-recall with key_len {self.key_len} and value_len "
                f"{self.value_len} needs at least {2 * self._longest - 1}"
            )

    @property
    def _longest(self) -> int:
        return self.key_len + self.value_len

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The value token seen most often, the latest one, and what followed the same few tokens.

        The last tokens of a key are matched with the value tokens since, and where that is found
        nowhere, fewer of them.
        """
        low, high = self.n_keys, self.vocab_size - 1
        frequent = partial(most_frequent, low=low, high=high)
        two, one = (partial(after_match, length=n, low=low, high=high) for n in (2, 1))
        ends = [
            partial(after_match_and_answers, length=n, most=self.value_len, low=low, high=high)
            for n in range(1, self.key_len)
        ]
        return {
            "most frequent value": frequent,
            "latest value": partial(latest, low=low, high=high),
            "behind the same two tokens": backing_off(two, one, frequent),
            **{
                last_of_key(part): backing_off(*reversed(ends[:part]), frequent)
                for part in range(1, self.key_len)
            },
        }

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, k, longest = batch_size, self.seqlen, self.key_len, self._longest
        n_pairs = (L + 1 - longest) // (k + 1)  # most pairs that fit: all of the shortest size
        K, pad = self.n_keys, self.vocab_size - 1
        device = generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        def motifs(low: int, high: int, size: int) -> Tensor:
            """Draw (B, n_pairs, size) tokens in [low, high), distinct within a motif."""
            tokens: list[Tensor] = []  # one entry per token of a motif, so only a few
            taken: list[Tensor] = []  # the same, sorted
            for i in range(size):
                token = draw(low, high - i, B, n_pairs)
                for other in taken:
                    token = token + (token >= other)
                tokens.append(token)
                if i < size - 1:
                    for j, other in enumerate(taken):
                        taken[j], token = torch.minimum(other, token), torch.maximum(other, token)
                    taken.append(token)
            return torch.stack(tokens, 2)

        keys, values = motifs(0, K, k), motifs(K, pad, self.value_len)
        sizes = draw(1, self.value_len + 1, B, n_pairs)
        first = first_occurrence(self._number(keys))  # (B, n_pairs), the pair whose value is used
        sizes = sizes.gather(1, first)
        values = values.gather(1, first[..., None].expand_as(values))
        again = first < torch.arange(n_pairs, device=device)
        ends = (sizes + k).cumsum(1)
        kept = ends <= L + 1 - longest  # always keeps the first
        n_kept = kept.sum(1, keepdim=True)  # (B, 1)
        query = draw(0, _RANGE, B, 1) % n_kept  # bias below L / 2^24
        query_size = sizes.gather(1, query)
        begin = L + 1 - k - query_size  # start of the query; its last token, at L, is left out
        shift = begin - ends.gather(1, n_kept - 1)  # amount of padding
        # Whatever is not shown is written to column L + 1.
        inputs = torch.full((B, L + 2), pad, device=device)
        targets = torch.full_like(inputs, IGNORE)

        def put(key: Tensor, value: Tensor, size: Tensor, at: Tensor, known: Tensor) -> None:
            """Write (B, P, ...) pairs: keys from `at` on, then values; targets where `known`."""
            nth = torch.arange(self.value_len, device=device)
            key_at = at[..., None] + torch.arange(k, device=device)
            inputs.scatter_(1, key_at.clamp_max_(L + 1).flatten(1), key.flatten(1))
            value_at = at[..., None] + torch.where(nth < size[..., None], k + nth, 2 * L)
            value_at = value_at.clamp_max_(L + 1)
            inputs.scatter_(1, value_at.flatten(1), value.flatten(1))
            target_at = (value_at - 1).masked_fill_((~known)[..., None], L)
            targets.scatter_(1, target_at.flatten(1), value.flatten(1))

        at = torch.where(kept, shift + ends - sizes - k, 2 * L)
        put(keys, values, sizes, at, again & kept)
        one = torch.ones_like(query, dtype=torch.bool)
        query_key, query_value = (
            motif.gather(1, query[..., None].expand(-1, 1, motif.shape[2]))
            for motif in (keys, values)
        )
        put(query_key, query_value, query_size, begin, one)
        inputs, targets = inputs[:, :L].contiguous(), targets[:, :L].contiguous()
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Find where a complete key first occurred and read its value there."""
        import torch

        B, L = inputs.shape
        k, K, pad = self.key_len, self.n_keys, self.vocab_size - 1
        position = torch.arange(L, device=inputs.device).expand(B, L)
        if k > L:
            return torch.full_like(inputs, UNKNOWN)
        is_key, is_value = inputs < K, (inputs >= K) & (inputs < pad)
        # A complete key is a run of k key tokens: number the run that ends at each position.
        window = inputs.unfold(1, k, 1)  # (B, L - k + 1, k)
        whole = torch.zeros_like(is_key)
        whole[:, k - 1 :] = is_key.unfold(1, k, 1).all(2)
        ids = -1 - position
        ids = torch.cat(
            [
                ids[:, : k - 1],
                torch.where(whole[:, k - 1 :], self._number(window), ids[:, k - 1 :]),
            ],
            1,
        )
        first = first_occurrence(ids)  # (B, L), by where keys end
        end = torch.where(whole, position, -1).cummax(1).values  # the latest key's end
        inside = end >= 0
        origin = first.gather(1, end.clamp_min(0))
        source = origin + 1 + position - end
        # Only value tokens may follow a key's end, both at the source and here.
        known = inside & (whole | is_value) & (origin < end) & (source < end)
        answer = inputs.gather(1, source.clamp(0, L - 1))
        known &= (answer >= K) & (answer < pad)
        return torch.where(known, answer, UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Assume that the pair cut by the window has the current key, where that is possible."""
        return cut_pair_guess(inputs, at, self.key_len, self.value_len, self.n_keys, self.n_values)

    def _number(self, keys: Tensor) -> Tensor:
        """Return (B, P): one number for each key of (B, P, key_len) tokens."""
        import torch

        radix = self.n_keys ** torch.arange(keys.shape[2], device=keys.device)
        return (keys * radix).sum(2)
