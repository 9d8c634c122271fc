"""Random automata, one for each example, and walks through them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechbench.tasks.distinct import draw_wide

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Ranges:
    """What a random automaton may have; each number is uniform between both ends.

    Attributes:
        states: numbers of states.
        alphabet: numbers of symbols.
        edges: numbers of edges that leave a state, fewer than states and at most the symbols.
    """

    states: tuple[int, int]
    alphabet: tuple[int, int]
    edges: tuple[int, int]


@dataclass(frozen=True)
class Automata:
    """An automaton for each example; state 0 is the first.

    Attributes:
        follows: (B, S, E) int64, the states to which the edges lead.
        symbols: (B, S, E) int64, the symbols on them.
        n_edges: (B, S, 1) int64, how many of the E edges there are.
    """

    follows: Tensor
    symbols: Tensor
    n_edges: Tensor

    def chosen(self, which: Tensor) -> Automata:
        """Return the automata with these numbers, (B,) int64."""
        return Automata(self.follows[which], self.symbols[which], self.n_edges[which])

    def to(self, device: torch.device) -> Automata:
        """Return them on a device."""
        parts = (tensor.to(device) for tensor in (self.follows, self.symbols, self.n_edges))
        return Automata(*parts)

    def walk(self, lots: Tensor, n_lots: int) -> tuple[Tensor, Tensor]:
        """Walk from state 0 and return (B, T): the states, and the edge taken from each.

        Args:
            lots: (B, T) int64; a lot decides which edge is taken. If lots are uniform in [0,
                n_lots), so are edges. Where it is n_lots, the next state is 0 again.
            n_lots: `n_lots(E)`.
        """
        import torch

        B, S, _ = self.follows.shape
        lot = torch.arange(n_lots, device=lots.device)
        edge_of = lot % self.n_edges  # (B, S, n_lots)
        after = torch.nn.functional.pad(self.follows.gather(2, edge_of), (0, 1))
        after = after.mT.reshape(B, (n_lots + 1) * S)  # ordered by lot, then by state
        T = lots.shape[1]
        state = torch.arange(S, device=lots.device)
        maps = after.gather(1, (lots[..., None] * S + state).view(B, T * S)).view(B, T, S)
        states = walk(maps)
        return states, lots % self.n_edges[..., 0].gather(1, states)


def n_lots(most_edges: int) -> int:
    """Return the least number that every number of edges divides."""
    return math.lcm(*range(1, most_edges + 1))


def draw_automata(
    batch_size: int, n_symbols: int, ranges: Ranges, generator: torch.Generator
) -> Automata:
    """Draw automata over alphabets that are random parts of [0, n_symbols).

    The edges of a state lead to distinct other states with distinct symbols, all choices equally
    likely.
    """
    import torch

    B, S, A, E = batch_size, ranges.states[1], ranges.alphabet[1], ranges.edges[1]
    device = generator.device

    def number(least_and_most: tuple[int, int], *shape: int) -> Tensor:
        low, high = least_and_most
        return torch.randint(low, high + 1, shape, generator=generator, device=device)

    def choose(allowed: Tensor) -> Tensor:
        """Return (B, S, E): distinct choices among what is allowed, (B, S or 1, N)."""
        keys = draw_wide((B, S, allowed.shape[-1]), generator)
        return torch.where(allowed, keys, 1 << 50).argsort(2)[..., :E]

    state, letter = torch.arange(S, device=device), torch.arange(A, device=device)
    follows = choose((state < number(ranges.states, B, 1, 1)) & (state != state[:, None]))
    alphabet = draw_wide((B, n_symbols), generator).argsort(1)
    letters = choose(letter < number(ranges.alphabet, B, 1, 1))
    symbols = alphabet.gather(1, letters.flatten(1)).view(B, S, E)
    return Automata(follows, symbols, number(ranges.edges, B, S, 1))


def walk(maps: Tensor) -> Tensor:
    """Return (B, T): where one is before each of the maps (B, T, S), from 0 on.

    Neighbouring maps are joined, so that there are half as many, again and again.
    """
    import torch

    B, T, _ = maps.shape
    if T == 1:
        return maps.new_zeros(B, 1)
    pairs = T // 2
    first, second = maps[:, 0 : 2 * pairs : 2], maps[:, 1::2]
    joined = second.gather(2, first)
    even = walk(joined)  # (B, pairs)
    odd = first.gather(2, even[..., None])[..., 0]
    states = torch.stack([even, odd], 2).flatten(1)
    if T % 2:
        last = joined[:, -1].gather(1, even[:, -1:])
        states = torch.cat([states, last], 1)
    return states
