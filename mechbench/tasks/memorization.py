"""Memorisation: name the value of a key under a map that is the same in all examples.

One example with V = 9 (keys 0 to 3, values 4 to 7, `=>` = 8) and L = 8:

    position   0  1  2  3  4  5  6  7
    inputs     2  => 0  => 2  => 3  =>
    targets    .  4  .  7  .  4  .  5

Keys are uniform, each followed by `=>`, where the key's value is the target; no value is ever
shown. The map, from keys to distinct values, is drawn from `map_seed` alone. So by definition
training and test ask the same questions: `train_is_test` says so, training examples that occur in
an evaluation set are kept, and results are marked. Source: Poli et al. 2024 (MAD), section 3.1 and
appendix B; its axis is V 512, 1024, ... 8192 with 256 training examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.record.seeds import derive
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch
from mechbench.tasks.distinct import draw_distinct
from mechbench.tasks.halves import Halves

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task("memorization", source="Poli et al. 2024 (MAD), section 3.1", measures="recall")
@dataclass(frozen=True)
class Memorization(Halves):
    """Memorisation: name the value that a fixed map gives to each key.

    Attributes:
        vocab_size: V: keys and values (half of V - 1 each), and `=>` (V-1).
        seqlen: L, tokens of an example.
        map_seed: seed of the map; another map is another task.

    Raises:
        ConfigError: vocab_size below 4, or map_seed negative.
        SeqlenError: seqlen odd or below 2.
    """

    vocab_size: int
    seqlen: int
    map_seed: int = 0

    version: ClassVar[int] = 1
    train_is_test: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 256, "seqlen": 32}
    closing: ClassVar[str] = "=>"

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: memorization needs at least 4 "
                "(one key, two values, =>)"
            )
        if self.map_seed < 0:
            raise ConfigError(f"map_seed is {self.map_seed}: expected 0 or more")
        if self.seqlen < 2 or self.seqlen % 2:
            near = max(2, self.seqlen + self.seqlen % 2)
            raise SeqlenError(
                f"seqlen is {self.seqlen}: memorization needs an even number of at least 2; the "
                f"nearest is {near}"
            )

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The first key's value, for every key."""
        return {"first key's value": self._constant}

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        shape = (batch_size, self.seqlen // 2)
        keys = torch.randint(self.n_keys, shape, generator=generator, device=generator.device)
        inputs = torch.stack([keys, torch.full_like(keys, self.vocab_size - 1)], 2).flatten(1)
        values = self._values(generator.device)[keys]
        targets = torch.stack([torch.full_like(keys, IGNORE), values], 2).flatten(1)
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Look the key before each `=>` up in the map."""
        import torch

        answers = torch.full_like(inputs, UNKNOWN)
        asked = inputs[:, 1:] == self.vocab_size - 1
        values = self._values(inputs.device)[inputs[:, :-1] * asked]
        answers[:, 1:] = torch.where(asked, values, UNKNOWN)
        return answers

    def _values(self, device: torch.device) -> Tensor:
        return _draw_map(self.n_keys, self.n_values, self.map_seed, str(device))

    def _constant(self, inputs: Tensor) -> Tensor:
        return self._values(inputs.device)[:1].expand_as(inputs)


@lru_cache(maxsize=8)
def _draw_map(n_keys: int, n_values: int, map_seed: int, device: str) -> Tensor:
    """Return (n_keys,): each key's value, drawn on the CPU so that all devices share the map."""
    import torch

    generator = torch.Generator().manual_seed(derive(map_seed, "memorization", n_keys, n_values))
    return (n_keys + draw_distinct(1, n_keys, n_values, generator)[0]).to(device)
