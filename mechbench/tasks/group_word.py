"""Group word: name the product of all group elements so far.

One example in S3, whose elements are written as where they take 1 2 3, with L = 5:

    position     0    1    2    3    4
    inputs     213  132  213  321  231
    targets    213  231  321  123  231

The inputs are uniform among the moves: all elements, or permutations that move few points, which
are easier. The target at every position is the product g_1 g_2 .. g_i, where a b means: first b,
then a. Examples with a common beginning ask the same there, so training and test are kept apart by
their first `apart_by` tokens, and scored where these are over; public generators split by whole
sequences. Source: Merrill et al. 2024 (arXiv:2404.08819), section 5 (the word problem), with Z_n,
S_n, A_n and products of them; few points moved: Grazzi et al. 2024 (arXiv:2411.12537).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError, nearest
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.groups import make_group, quotients, running_products

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOVES = {"all": 9, "swaps": 2, "3-cycles": 3}  # points that a move may move at most
_APART_BITS = 40  # of randomness that a beginning must hold to be no other example's
_RECENT = 8  # moves that the shortcut multiplies


@register_task(
    "group-word",
    source="Merrill et al. 2024 (arXiv:2404.08819), section 5",
    measures="state tracking",
)
@dataclass(frozen=True)
class GroupWord(Task):
    """Group word: name the product of all group elements so far.

    Attributes:
        vocab_size: V, at least the order of the group; tokens are its elements, others not used.
        seqlen: L, elements of an example.
        group: name, such as Z2 (parity), Z60, S3, S4, A4xZ5, A5 or S5.
        moves: "all"; "swaps": the identity and what swaps two points; "3-cycles": also cycles of
            three. The latter two are for permutations, S_n and A_n.

    Raises:
        ConfigError: unknown group or moves, or vocab_size below the group's order.
        SeqlenError: seqlen below 2.
    """

    vocab_size: int
    seqlen: int
    group: str = "S3"
    moves: str = "all"

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 6, "seqlen": 64}

    def __post_init__(self) -> None:
        order = make_group(self.group).order
        if self.vocab_size < order:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: {self.group} has {order} elements, so expected "
                f"at least {order}"
            )
        if self.seqlen < 2:
            raise SeqlenError(f"seqlen is {self.seqlen}: group-word needs at least 2")
        if self.moves not in MOVES:
            raise ConfigError(f"unknown moves {self.moves!r}: {nearest(self.moves, MOVES)}")
        if len(_moves(self.group, self.moves)) < 2:
            raise ConfigError(
                f"moves is {self.moves!r}: {self.group} has no such element but the identity; "
                "expected 'all'"
            )

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the group's order, and L 64."""
        return {**cls.defaults, "vocab_size": make_group(options["group"]).order}

    @property
    def chance(self) -> float:
        """A uniform guess among the elements."""
        return 1.0 / make_group(self.group).order

    @property
    def apart_by(self) -> int:
        """Moves that make about 2^40 different beginnings, or all."""
        bits = math.log2(len(_moves(self.group, self.moves)))
        return min(self.seqlen, math.ceil(_APART_BITS / bits))

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last move, the product of the last few, and of every other one."""
        return {
            "last move": lambda inputs: inputs,
            f"product of the last {_RECENT} moves": self._recent,
            "product of every other move": self._every_other,
        }

    @property
    def easiest_seqlen(self) -> int:
        """Short enough to learn the group, long enough to be scored after most beginnings."""
        return 16

    def describe(self, token: int) -> str:
        """Return the element, of permutations where they take 1, 2, ...; # for what is not used."""
        group = make_group(self.group)
        return group.text(token) if token < group.order else f"#{token}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        shape, device = (batch_size, self.seqlen), generator.device

        def draw(high: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=device)

        order = make_group(self.group).order
        if self.moves == "all":  # then the products are uniform and independent, too
            done = draw(order)
            inputs = done.clone()
            inputs[:, 1:] = quotients(self.group, device)[done[:, :-1] * order + done[:, 1:]]
        else:
            allowed = torch.tensor(_moves(self.group, self.moves), device=device)
            inputs = allowed[draw(len(allowed))]
            done = running_products(inputs, self.group)
        targets = done.clone()
        targets[:, : self.apart_by - 1] = IGNORE
        return Batch(inputs, targets, done)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Multiply; a window tells nothing, as anything may stand before it."""
        if inputs.shape[1] < self.seqlen:
            return inputs * 0 + UNKNOWN
        return running_products(inputs, self.group)

    def _recent(self, inputs: Tensor) -> Tensor:
        import torch

        window = min(_RECENT, inputs.shape[1])
        before = torch.nn.functional.pad(inputs, (window - 1, 0))  # 0 is the identity
        seen = before.unfold(1, window, 1).flatten(0, 1)
        return running_products(seen, self.group)[:, -1].view(inputs.shape)

    def _every_other(self, inputs: Tensor) -> Tensor:
        import torch

        odd = torch.arange(inputs.shape[1], device=inputs.device) % 2 == 1
        return running_products(inputs.masked_fill(odd, 0), self.group)


@lru_cache(maxsize=64)
def _moves(group: str, moves: str) -> tuple[int, ...]:
    """Return the numbers of the elements that are moves."""
    made = make_group(group)
    if moves == "all":
        return tuple(range(made.order))
    if "x" in group or group.startswith("Z"):
        return (0,)
    return tuple(i for i in range(made.order) if made.moved(i) <= MOVES[moves])
