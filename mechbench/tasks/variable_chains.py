"""Variable chains: list the variables that have a value, through several assignments.

One example with V = 13 (`=` 0, names 1 to 8, values 9 to 11, `=>` 12), L = 14, n_chains = 2 and
hops = 1, so that two variables have each value:

    position   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16
    inputs     4  =  9 11  2  = 10  5  =  4  3  =  2  9 => 10 =>
    targets    .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  2  3

Each chain has a value of its own, X_1 = v, and goes on with X_2 = X_1, X_3 = X_2, ... over `hops`
hops; names and values are drawn without replacement. The assignments, of three tokens each, stand
at uniform places among uniform values, those of a chain in their order and the chains uniformly
mixed. Then come `=>`, the value of a uniform chain, and `=>` once for each further answer: all of
the chain's names in their order, so that the j-th answer is j assignments away from the value.
Source: Hsieh et al. 2024 (RULER, arXiv:2404.06654), section 3, variable tracking, with 4 hops, here
at the level of tokens. Any order is right there. Here it is fixed, and the names are not shown to
the model: a name that is shown would make the next one a matter of a single hop. Chains never share
a value, of which a generator must take care: all names of both would be right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.distinct import draw_distinct
from mechbench.tasks.shortcuts import most_frequent
from mechbench.tasks.unseen import least_unseen

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@register_task(
    "variable-chains",
    source="Hsieh et al. 2024 (RULER, arXiv:2404.06654), section 3",
    measures="recall",
)
@dataclass(frozen=True)
class VariableChains(Task):
    """Variable chains: list the names that have a value, each assigned from the one before.

    Attributes:
        vocab_size: V: `=` (0), names, a third of the rest values, and `=>` (V-1).
        seqlen: L, tokens of assignments and noise; a model reads L + 2 + hops.
        hops: assignments of a chain from one name to another, besides the one of its value.
        n_chains: chains, each with a value of its own; one is asked for.

    Raises:
        ConfigError: hops or n_chains below 1, or too few names or values.
        SeqlenError: seqlen below the three tokens of each assignment.
    """

    vocab_size: int
    seqlen: int
    hops: int = 4
    n_chains: int = 2

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 64, "seqlen": 256}

    def __post_init__(self) -> None:
        for name in ("hops", "n_chains"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected at least 1")
        n, C = self._n_assigned, max(2, self.n_chains)
        fewest = max((3 * n) // 2 + 2, 3 * C + 2)
        if self.vocab_size < fewest:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: {self.n_chains} chain(s) of {self.hops} hop(s) "
                f"need at least {fewest}"
            )
        if self.seqlen < 3 * n:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: {self.n_chains} chain(s) of {self.hops} hop(s) need at "
                f"least {3 * n}"
            )

    @property
    def _n_assigned(self) -> int:
        return self.n_chains * (self.hops + 1)

    @property
    def _n_names(self) -> int:
        return self.vocab_size - 2 - (self.vocab_size - 2) // 3

    @property
    def input_seqlen(self) -> int:
        """Tokens a model reads: the assignments, `=>`, the value, and `=>` for each hop."""
        return self.seqlen + 2 + self.hops

    @property
    def chance(self) -> float:
        """A uniform guess among the names: about 3 / 2 V."""
        return 1.0 / self._n_names

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent name, the names of the first or last assignments, and one hop alone."""
        return {
            "most frequent name": partial(most_frequent, low=1, high=1 + self._n_names),
            "names of the first assignments": partial(self._in_order, last=False),
            "names of the last assignments": partial(self._in_order, last=True),
            "name assigned the value itself": self._one_hop,
        }

    @property
    def easiest_seqlen(self) -> int:
        """The power of two that is twice as long as the assignments or more."""
        return 1 << (6 * self._n_assigned - 1).bit_length()

    def describe(self, token: int) -> str:
        """Return `=`, x1, x2, ... (names), v1, v2, ... (values) or `=>`."""
        M = self._n_names
        if token in (0, self.vocab_size - 1):
            return "=>" if token else "="
        return f"x{token}" if token <= M else f"v{token - M}"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L + 2 + hops) examples on the generator's device."""
        import torch

        B, L, C, m, M = batch_size, self.seqlen, self.n_chains, self._n_assigned, self._n_names
        V, device = self.vocab_size, generator.device
        names = 1 + draw_distinct(B, m, M, generator).view(B, C, -1)
        values = 1 + M + draw_distinct(B, C, V - 2 - M, generator)
        sources = torch.cat([values[..., None], names[..., :-1]], 2)
        # Which chain each assignment in turn belongs to, then the places of each chain's own.
        chain = draw_distinct(B, m, m, generator) // (self.hops + 1)
        starts = draw_distinct(B, m, L - 2 * m, generator).sort(1).values
        starts += 2 * torch.arange(m, device=device)
        at = starts.gather(1, torch.sort(chain, dim=1, stable=True).indices)
        asked = torch.randint(C, (B, 1), generator=generator, device=device)
        inputs = torch.randint(
            1 + M, V - 1, (B, self.input_seqlen), generator=generator, device=device
        )
        inputs.scatter_(1, at, names.flatten(1)).scatter_(1, at + 1, 0)
        inputs.scatter_(1, at + 2, sources.flatten(1))
        inputs[:, L:] = V - 1
        inputs[:, L + 1 : L + 2] = values.gather(1, asked)
        targets = torch.full_like(inputs, IGNORE)
        answers = names.gather(1, asked[..., None].expand(B, 1, self.hops + 1))
        targets[:, L + 1 :] = answers[:, 0]
        return Batch(inputs, targets, targets)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Follow the value; or in a window go back from the only chain that can have that value.

        A window shows the end of each chain, as chains stand in their order.
        """
        import torch

        W, V, hops = inputs.shape[1], self.vocab_size, self.hops
        after, before = self._assigned(inputs)
        asking = inputs == V - 1
        query = asking.int().argmax(1, keepdim=True) + 1  # (B, 1)
        value = inputs.gather(1, query.clamp_max(W - 1))
        is_value = asking.any(1, keepdim=True) & (value > self._n_names) & (value < V - 1)
        name, forwards = torch.where(is_value, value, V), []
        for _ in range(hops + 1):
            name = after.gather(1, name)
            forwards.append(name)
        ends, roots = self._ends(after, before)
        is_open = (ends != V) & ~self._is_value(roots)
        others = ((ends != V) & ~is_open).sum(1, keepdim=True) == self.n_chains - 1
        alone = others & (is_open.sum(1, keepdim=True) == 1) & is_value
        name = torch.where(alone, ends.gather(1, is_open.int().argmax(1, keepdim=True)), V)
        backwards = [name]
        for _ in range(hops):
            backwards.append(before.gather(1, backwards[-1]))
        told = torch.cat(forwards, 1)
        told = torch.where(told < V, told, torch.cat(backwards[::-1], 1))
        ahead = torch.arange(W, device=inputs.device) - query
        answers = told.gather(1, ahead.clamp(0, hops))
        return torch.where((ahead >= 0) & (ahead <= hops) & (answers < V), answers, UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Go back from the end of a chain whose value is hidden; else a name that is not visible.

        All chains whose value is hidden are equally likely to be the one asked for.
        """
        import torch

        V = self.vocab_size
        after, before = self._assigned(inputs)
        ends, roots = self._ends(after, before)
        name = ends
        back = self.hops - (at - self.seqlen - 1)[:, None]  # steps from the end to the answer
        for step in range(self.hops):
            name = torch.where(step < back, before.gather(1, name), name)
        found = (name < V) & ~self._is_value(roots) & ~self._is_value(name)
        guess = name.gather(1, found.int().argmax(1, keepdim=True))[:, 0]
        # The source of a cut assignment is the last name but one of its chain, or an earlier one.
        cut = self._cut(inputs)
        last = ((back == 1) & (cut < V) & ~self._is_value(cut))[:, 0]
        other = least_unseen(inputs, 1, self._n_names + 1)
        return torch.where(found.any(1), guess, torch.where(last, cut[:, 0], other))

    def _assigned(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, V + 2) twice: what is assigned from each token, and what to it.

        V stands for nothing, and V + 1 for a hidden name that ends its chain.
        """
        import torch

        V = self.vocab_size
        equals = inputs[:, 1:-1] == 0
        name = torch.where(equals, inputs[:, :-2], V)
        source = torch.where(equals, inputs[:, 2:], V)
        nothing = inputs.new_full((len(inputs), V + 2), V)
        after, before = nothing.scatter(1, source, name), nothing.scatter(1, name, source)
        # A window may begin within an assignment. If it ends all chains, or a value was assigned,
        # the hidden name is where the only one begins that does not lead to a value; if it ends all
        # but one and leads all of them to values, the hidden name is the end of that one.
        cut = self._cut(inputs)
        ends, roots = self._ends(after, before)
        is_open = (ends != V) & ~self._is_value(roots)
        n_ends, n_open = (ends != V).sum(1, keepdim=True), is_open.sum(1, keepdim=True)
        root = roots.gather(1, is_open.int().argmax(1, keepdim=True))
        inner = (n_ends == self.n_chains) | self._is_value(cut)
        name = torch.where(inner & (n_open == 1), root, V)
        name = torch.where((n_ends == self.n_chains - 1) & (n_open == 0), V + 1, name)
        name = torch.where(cut < V, name, V)
        cut = torch.where(name != V, cut, V)
        return after.scatter(1, cut, name), before.scatter(1, name, cut)

    def _cut(self, inputs: Tensor) -> Tensor:
        """Return (B, 1): the source of an assignment whose name a window hides, or V."""
        import torch

        V = self.vocab_size
        if inputs.shape[1] < 2:
            return torch.full_like(inputs, V)
        begin, follows = inputs[:, :1], inputs[:, 1:2]
        is_name = (begin > 0) & (begin <= self._n_names)
        return torch.where(begin == 0, follows, torch.where(is_name & (follows != 0), begin, V))

    def _ends(self, after: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, M + 1) twice: the names that end chains, or V, and what those lead back to."""
        import torch

        V, M = self.vocab_size, self._n_names
        names = torch.arange(1, M + 2, device=after.device).expand(len(after), -1)
        names = torch.where(names <= M, names, V + 1)
        ends = (before.gather(1, names) != V) & (after.gather(1, names) == V)
        names = roots = torch.where(ends, names, V)
        for _ in range(self.hops + 1):
            further = before.gather(1, roots)
            roots = torch.where(further != V, further, roots)
        return names, roots

    def _is_value(self, tokens: Tensor) -> Tensor:
        return (tokens > self._n_names) & (tokens < self.vocab_size)

    def _in_order(self, inputs: Tensor, last: bool) -> Tensor:
        import torch

        h, L = self.hops + 1, self.seqlen
        equals = inputs[:, :L] == 0
        number = equals.cumsum(1) - (self._n_assigned - h + 1 if last else 1)
        kept = equals & (number >= 0) & (number < h)
        names = torch.full((len(inputs), h + 1), UNKNOWN, device=inputs.device)
        names.scatter_(1, torch.where(kept, number, h)[:, 1:], inputs[:, : L - 1])
        answers = torch.full_like(inputs, UNKNOWN)
        answers[:, L + 1 :] = names[:, :h]
        return answers

    def _one_hop(self, inputs: Tensor) -> Tensor:
        after, _ = self._assigned(inputs)
        return after.gather(1, inputs[:, self.seqlen + 1, None]).expand_as(inputs)
