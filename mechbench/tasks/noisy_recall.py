"""Noisy recall: associative recall with pairs of noise tokens in between.

One example with V = 10 (keys 0 1 2, values 3 4 5, noise 6 to 9), n_noise = 4 and L = 12:

    position   0  1  2  3  4  5  6  7  8  9 10
    inputs     1  4  8  6  0  5  1  4  7  7  0
    targets    .  .  .  .  .  .  4  .  .  .  5

There are L/2 - 1 slots; each holds two uniform noise tokens with probability noise_share, else a
uniform key and its value. One slot, chosen uniformly, is never noise. Each example draws its own
map (values with replacement). The last token is a key, uniform over the distinct ones that
occurred. Every key that has occurred before is scored. Source: Poli et al. 2024 (MAD), section 3.1
and appendix B, exactly as released ("noisy in-context recall", multi-query); its axes are V 48, 80,
144 with 16 noise tokens, L 256, 512, 1024 and noise_share 0.4, 0.6, 0.8. With n_noise and
noise_share 0 it is MAD's "in-context recall".

Deviation: the release averages accuracy over classes, we average it over positions.
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

_RANGE = 1 << 24  # torch.randint's stream changed between releases for larger ranges


@register_task("noisy-recall", source="Poli et al. 2024 (MAD), section 3.1", measures="recall")
@dataclass(frozen=True)
class NoisyRecall(Task):
    """Noisy recall: name the value of every key seen before, despite noise in between.

    Attributes:
        vocab_size: V: keys and values (half each), then the noise tokens.
        seqlen: L, tokens including the last value; a model reads L - 1.
        n_noise: number of noise tokens, the last of the V.
        noise_share: probability that a slot is noise.

    Raises:
        ConfigError: fewer than two non-noise tokens, or n_noise or noise_share out of range.
        SeqlenError: seqlen odd or below 4.
    """

    vocab_size: int
    seqlen: int
    n_noise: int = 16
    noise_share: float = 0.2

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 32, "seqlen": 128}

    def __post_init__(self) -> None:
        if self.n_noise < 0:
            raise ConfigError(f"n_noise is {self.n_noise}: expected 0 or more")
        if not 0 <= self.noise_share < 1 or (self.noise_share and not self.n_noise):
            raise ConfigError(
                f"noise_share is {self.noise_share}: expected 0 or more and below 1, and 0 "
                "without noise tokens"
            )
        if self.vocab_size - self.n_noise < 2:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: noisy-recall with {self.n_noise} noise tokens "
                f"needs at least {self.n_noise + 2} (one key, one value)"
            )
        if self.seqlen < 4 or self.seqlen % 2:
            near = max(4, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: noisy-recall needs an even number of at least 4 "
                f"(key-value pairs); the nearest is {near}"
            )

    @property
    def n_keys(self) -> int:
        """Number of keys, which are the first tokens."""
        return (self.vocab_size - self.n_noise) // 2

    @property
    def _first_noise(self) -> int:
        return self.vocab_size - self.n_noise

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: all but the last value."""
        return self.seqlen - 1

    @property
    def chance(self) -> float:
        """A uniform guess among the values: 2 / (V - n_noise) if V - n_noise is even."""
        return 1.0 / (self._first_noise - self.n_keys)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent value, and the latest one."""
        low, high = self.n_keys, self._first_noise
        return {
            "most frequent value": partial(most_frequent, low=low, high=high),
            "latest value": partial(latest, low=low, high=high),
        }

    @property
    def easiest_seqlen(self) -> int:
        """The power of two at which each key occurs about four times or more; at least 64."""
        return max(64, 1 << (8 * self.n_keys - 1).bit_length())

    def describe(self, token: int) -> str:
        """Return k1, k2, ..., v1, v2, ... or ~1, ~2, ... for noise."""
        for letter, first in (("~", self._first_noise), ("v", self.n_keys), ("k", 0)):
            if token >= first:
                return f"{letter}{token - first + 1}"
        return str(token)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L - 1) examples on the generator's device."""
        import torch

        B, P, K, U = batch_size, self.seqlen // 2 - 1, self.n_keys, self._first_noise
        device = generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        value_of = draw(K, U, B, K)
        keys = draw(0, K, B, P)
        pairs = torch.stack([keys, value_of.gather(1, keys)], 2)  # (B, P, 2)
        if self.n_noise:
            noisy = draw(0, _RANGE, B, P) < self.noise_share * _RANGE
            noisy.scatter_(1, draw(0, P, B, 1), False)
            noise = draw(U, self.vocab_size, B, P, 2)
            inputs = torch.where(noisy[..., None], noise, pairs)
            keys = keys.masked_fill(noisy, K)  # noise counts as one more key, left out below
        else:
            inputs = pairs
        index = torch.arange(P, device=device).expand(B, P)
        first = torch.full((B, K + 1), P, device=device).scatter_reduce_(1, keys, index, "amin")
        # The query is uniform over the distinct keys that occurred: draw a rank among them.
        rank_of = (first[:, :K] < P).cumsum(1)
        rank = draw(0, _RANGE, B, 1) % rank_of[:, -1:]  # bias below K / 2^24
        query = (rank_of <= rank).sum(1, keepdim=True)  # (B, 1)
        again = (index > first.gather(1, keys)) & (keys < K)

        inputs = torch.cat([inputs.flatten(1), query], 1)  # (B, L - 1)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, 0:-1:2] = torch.where(again, pairs[..., 1], IGNORE)
        targets[:, -1:] = value_of.gather(1, query)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Look up every key in the visible pairs."""
        import torch

        K = self.n_keys
        keys = inputs.clamp_max(K)  # everything else counts as one more key
        value_of = torch.full((len(inputs), K + 1), UNKNOWN, device=inputs.device)
        value_of.scatter_(1, keys[:, :-1], inputs[:, 1:])  # equal keys write equal values
        value_of[:, K] = UNKNOWN
        return value_of.gather(1, keys)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the value that the window begins with, if any: its hidden key may be the query."""
        import torch

        front = inputs[:, 0]
        is_value = (front >= self.n_keys) & (front < self._first_noise)
        return torch.where(is_value, front, UNKNOWN)
