"""Stack: pop what was pushed last, on several stacks at once.

One example with n_stacks = 2 (`push` `pop` = 0 1, the stacks s0 s1 = 2 3, then values) and L = 14:

    position    0   1   2    3   4   5    6   7   8   9  10  11  12  13
    inputs   push  s0  v3 push  s1  v0 push  s0  v1 pop  s0  v1 pop  s0
    targets     .   .   .    .   .   .    .   .   .   .  v1   .   .  v3

An operation is three tokens: `push`, a stack and a value, or `pop`, a stack and the value on top of
it, which is scored where it is to follow; the last of an example is not among the inputs. There are
as many operations as L tokens hold, each on a uniform stack and a push or a pop with equal
probability, but a push where the stack is empty; the last one is a pop, on any stack that is not
empty, if there is one. Pushed values are uniform. The form is ours; Deletang et al. 2022
(arXiv:2207.02098) have one stack and ask for all of it at the end ("stack manipulation").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.distinct import draw_wide
from mechbench.tasks.previous_occurrence import previous_occurrence
from mechbench.tasks.shortcuts import latest, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PUSH, _POP, _FIRST = 0, 1, 2  # tokens; from _FIRST on stacks, then values


@register_task(
    "stack",
    source="after Deletang et al. 2022 (arXiv:2207.02098), stack manipulation",
    measures="state tracking",
)
@dataclass(frozen=True)
class Stack(Task):
    """Stack: name the value on top of the stack that is popped.

    Attributes:
        vocab_size: V: `push`, `pop`, the stacks and V - 2 - n_stacks values.
        seqlen: L, most tokens that a model reads; operations have three, the last one two.
        n_stacks: how many stacks there are.

    Raises:
        ConfigError: n_stacks below 1, or fewer than two values.
        SeqlenError: seqlen below 5, two operations.
    """

    vocab_size: int
    seqlen: int
    n_stacks: int = 4

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 38, "seqlen": 128}

    def __post_init__(self) -> None:
        if self.n_stacks < 1:
            raise ConfigError(f"n_stacks is {self.n_stacks}: expected at least 1")
        if self.n_values < 2:
            least = _FIRST + self.n_stacks + 2
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: stack with {self.n_stacks} stacks needs at "
                f"least {least} (push, pop, stacks, two values)"
            )
        if self.seqlen < 5:
            raise SeqlenError(f"seqlen is {self.seqlen}: stack needs at least 5")

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return tokens for the stacks and 32 values, and L 128."""
        return {**cls.defaults, "vocab_size": options["n_stacks"] + 34}

    @property
    def n_values(self) -> int:
        """Values that can be pushed."""
        return self.vocab_size - self._first_value

    @property
    def _first_value(self) -> int:
        return _FIRST + self.n_stacks

    @property
    def _n_operations(self) -> int:
        return (self.seqlen + 1) // 3

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: all but the value of the last operation."""
        return 3 * self._n_operations - 1

    @property
    def chance(self) -> float:
        """A uniform guess among the values."""
        return 1.0 / self.n_values

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last value of any stack, the one seen most often, and the last one of the stack."""
        low, high = self._first_value, self.vocab_size
        return {
            "last value": lambda inputs: latest(inputs, low, high),
            "most frequent value": lambda inputs: most_frequent(inputs, low, high),
            "last value of the stack": self._last_of_stack,
        }

    @property
    def easiest_seqlen(self) -> int:
        """Ten operations."""
        return 32

    def describe(self, token: int) -> str:
        """Return push, pop, s0, s1, ... for stacks, v0, v1, ... for values."""
        if token < _FIRST:
            return ("push", "pop")[token]
        value = token - self._first_value
        return f"v{value}" if value >= 0 else f"s{token - _FIRST}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, 3 n - 1) examples of n operations on the generator's device."""
        import torch

        B, n, S, device = batch_size, self._n_operations, self.n_stacks, generator.device

        def draw(high: int) -> Tensor:
            return torch.randint(high, (B, n), generator=generator, device=device)

        stacks, steps, values = draw(S), 2 * draw(2) - 1, draw(self.n_values)
        # The height of a stack, which rises for sure from 0, is the distance of a walk from 0.
        walks = _running_sums(steps[:, :-1], stacks[:, :-1])
        ends = torch.zeros(B, S, dtype=torch.int64, device=device)
        ends.scatter_add_(1, stacks[:, :-1], steps[:, :-1])
        keys = torch.where(ends == 0, -1, draw_wide((B, S), generator))
        last = torch.where((ends == 0).all(1), stacks[:, -1], keys.argmax(1))[:, None]
        stacks = torch.cat([stacks[:, :-1], last], 1)
        before = torch.cat([walks - steps[:, :-1], ends.gather(1, last)], 1).abs()
        after = torch.cat([walks.abs(), (before[:, -1:] - 1).abs()], 1)
        push = after > before
        source = previous_occurrence(stacks * (n + 1) + torch.maximum(before, after))
        tops = torch.where(push, values, values.gather(1, source.clamp_min(0)))
        acts = torch.where(push, _PUSH, _POP)
        tokens = torch.stack([acts, stacks + _FIRST, tops + self._first_value], 2).flatten(1)
        targets = torch.full_like(tokens, IGNORE)
        targets[:, 1::3] = torch.where(push, IGNORE, tokens[:, 2::3])
        targets = targets[:, :-1].contiguous()
        return Batch(tokens[:, :-1].contiguous(), targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Name the value of the push that a pop undoes, where it is seen; windows end at stacks."""
        import torch

        answers = torch.full_like(inputs, UNKNOWN)
        if inputs.shape[1] < 2:
            return answers
        acts, stacks, values = self._operations(inputs)
        source = previous_occurrence(stacks * (4 * acts.shape[1]) + _levels(acts, stacks))
        seen = (acts == _POP) & (source >= 0)
        tops = torch.where(seen, values.gather(1, source.clamp_min(0)), UNKNOWN)
        answers[:, (inputs.shape[1] - 2) % 3 + 1 :: 3] = tops
        return answers

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name the value of an operation that the window cuts, where it may be the push asked for.

        That it is at the level asked for, and on the stack if that is visible, is all that counts.
        """
        import torch

        T = inputs.shape[1]
        cut = (T - 2) % 3
        if T < 3 or not cut:
            return at * 0 + UNKNOWN
        acts, stacks, _ = self._operations(inputs)
        level = _levels(acts, stacks)[:, -1] == 2 * acts.shape[1]
        if cut == 2:
            level &= inputs[:, 0] == inputs[:, -1]
        return torch.where(level, inputs[:, cut - 1], UNKNOWN)

    def _operations(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is done, on which stack and with which value, (B, N) each, 0 for the last."""
        import torch

        whole = torch.nn.functional.pad(inputs[:, (inputs.shape[1] - 2) % 3 :], (0, 1))
        return whole[:, ::3], whole[:, 1::3] - _FIRST, whole[:, 2::3]

    def _last_of_stack(self, inputs: Tensor) -> Tensor:
        import torch

        _, stacks, values = self._operations(inputs)
        source = previous_occurrence(stacks)
        guess = torch.zeros_like(inputs)
        guess[:, 1::3] = values.gather(1, source.clamp_min(0))
        return guess


def _running_sums(steps: Tensor, stacks: Tensor) -> Tensor:
    """Return (B, N): of each stack the sum of its steps up to each operation on it."""
    import torch

    order = stacks.sort(dim=1, stable=True)
    sums = steps.gather(1, order.indices).cumsum(1)
    new = torch.nn.functional.pad(order.values[:, 1:] != order.values[:, :-1], (1, 0))
    place = torch.arange(steps.shape[1], device=steps.device)
    begin = torch.where(new, place, 0).cummax(1).values
    earlier = torch.nn.functional.pad(sums, (1, 0)).gather(1, begin)
    return torch.empty_like(sums).scatter_(1, order.indices, sums - earlier)


def _levels(acts: Tensor, stacks: Tensor) -> Tensor:
    """Return (B, N): the height at which each operation puts or takes; 2 N where a window begins.

    A push puts one above the height before it, a pop takes at that height.
    """
    import torch

    steps = torch.where(acts == _PUSH, 1, -1)
    after = _running_sums(steps, stacks)
    return torch.maximum(after, after - steps) + 2 * acts.shape[1]
