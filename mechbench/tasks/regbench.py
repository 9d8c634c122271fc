"""RegBench: continue words of a regular language that only the words before show.

One example with V = 5 (`|` = 0, symbols 1 to 4) and L = 13:

    position   0  1  2  3  4  5  6  7  8  9 10 11 12
    inputs     2  1  4  2  |  3  1  |  2  1  4  4  |
    targets    .  .  .  .  3  .  .  2  1  4  4  .  2
    also       .  .  .  .  2  .  .  3  .  .  2  .  3

Each example has its own random automaton: 4 to 12 states; an alphabet of 4 to 18 symbols, a random
part of those of the vocabulary; from every state 1 to 3 edges to distinct other states with
distinct symbols; all of these uniform. Words are uniform walks, 1 to 49 symbols long, which all
begin in state 0 as in the released generator, with `|` between. A prediction is right if it is
legal: a symbol with which an edge leaves the current state. Source: Akyuerek et al. 2024,
arXiv:2401.12973. There an example has 10 to 19 words; here words go on until L tokens are full, and
the last may be cut (15 words are about L = 390).

What is scored differs. The source scores every symbol, also where nothing before tells what is
legal. Here an answer must be determined: a position is scored if an earlier word began like the
current one up to here, and went on. Then both are in the same state, because words start in the
same state and no two edges of a state have the same symbol, so that what came next there is legal
here. That is all that determinism alone tells of which states are the same. The first of a word
(asked for at `|`) is always determined. `|` itself is never an answer, because all states accept
and lengths are drawn: positions before it are not scored.

The source also varies the number of automata in training, and tests on others: with n_automata, all
of training and validation is of so many, the same for every seed, and each test example has a new
one. By default all examples have new ones, so that no model can learn one by heart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.tasks.automata import Automata, Ranges, draw_automata, n_lots
from mechbench.tasks.base import IGNORE, UNKNOWN, Batch, Task
from mechbench.tasks.previous_occurrence import previous_occurrence
from mechbench.tasks.shortcuts import after_match, backing_off, most_frequent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_APART = 32  # tokens in which about 40 bits of an automaton and its walk have been drawn
_POOL_SEED = 2024  # of the automata of training
_MOST_EDGES = 6  # the walk needs tables of lcm(1, 2, ..) columns


@register_task(
    "regbench", source="Akyuerek et al. 2024, arXiv:2401.12973", measures="in-context learning"
)
@dataclass(frozen=True)
class Regbench(Task):
    """RegBench: name a symbol that continues the word, in a language known by its words.

    Attributes:
        vocab_size: V: `|` (0) and V - 1 symbols, of which an example uses some.
        seqlen: L, tokens of an example.
        min_states: fewest states of an automaton.
        max_states: most states.
        min_alphabet: fewest symbols of an alphabet.
        max_alphabet: most symbols.
        max_edges: most edges from a state; 1 is the fewest.
        min_word: shortest word.
        max_word: longest word.
        n_automata: how many there are in training; 0 for new ones in every example.

    Raises:
        ConfigError: a range that is empty, more edges than states or symbols allow, or too few
            symbols in the vocabulary.
        SeqlenError: seqlen below max_word + 2.
    """

    vocab_size: int
    seqlen: int
    min_states: int = 4
    max_states: int = 12
    min_alphabet: int = 4
    max_alphabet: int = 18
    max_edges: int = 3
    min_word: int = 1
    max_word: int = 49
    n_automata: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 19, "seqlen": 384}

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a vocabulary of the largest alphabet."""
        return {**cls.defaults, "vocab_size": options["max_alphabet"] + 1}

    def __post_init__(self) -> None:
        edges = self.max_edges
        if not 1 <= edges <= _MOST_EDGES:
            raise ConfigError(f"max_edges is {edges}: expected 1 to {_MOST_EDGES}")
        for name, least in (("states", edges + 1), ("alphabet", edges), ("word", 1)):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low < least:
                raise ConfigError(
                    f"min_{name} is {low}: expected at least {least} with max_edges {edges}"
                )
            if high < low:
                raise ConfigError(f"max_{name} is {high}: expected at least min_{name}, {low}")
        if self.n_automata < 0:
            raise ConfigError(f"n_automata is {self.n_automata}: expected 0, for new ones, or more")
        if self.vocab_size <= self.max_alphabet:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}: regbench with alphabets of up to "
                f"{self.max_alphabet} needs at least {self.max_alphabet + 1}"
            )
        if self.seqlen < self.max_word + 2:
            raise SeqlenError(
                f"seqlen is {self.seqlen}: regbench with words of up to {self.max_word} needs at "
                f"least {self.max_word + 2}"
            )

    @property
    def _ranges(self) -> Ranges:
        return Ranges(
            (self.min_states, self.max_states),
            (self.min_alphabet, self.max_alphabet),
            (1, self.max_edges),
        )

    @property
    def apart_by(self) -> int:
        """Tokens of a beginning that is hardly drawn twice; `|` stands behind it at least once."""
        return min(_APART, self.seqlen - self.max_word)

    @property
    def chance(self) -> float:
        """A uniform guess among the V - 1 symbols, of which (1 + max_edges) / 2 are legal.

        Where a word began like an earlier one, it is a tenth less.
        """
        return (1 + self.max_edges) / 2 / (self.vocab_size - 1)

    @property
    def shortcuts(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The most frequent symbol, and what last followed the same token or two."""
        frequent = partial(most_frequent, low=1, high=self.vocab_size)
        two, one = self._after(2), self._after(1)
        return {
            "most frequent symbol": frequent,
            "behind the same token": backing_off(one, frequent),
            "behind the same two tokens": backing_off(two, one, frequent),
        }

    @property
    def easiest_seqlen(self) -> int:
        """The power of two that holds about five words, and the longest."""
        words = 5 * (self.min_word + self.max_word) // 2
        return 1 << (max(words, self.max_word + 2) - 1).bit_length()

    def describe(self, token: int) -> str:
        """Return `|` or the symbol's number."""
        return str(token) if token else "|"

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw (B, L) examples on the generator's device."""
        import torch

        B, L, n = batch_size, self.seqlen, n_lots(self.max_edges)
        device = generator.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        if self.n_automata:
            automata = _pool(self, device).chosen(draw(0, self.n_automata, B))
        else:
            automata = draw_automata(B, self.vocab_size - 1, self._ranges, generator)
        words = draw(self.min_word, self.max_word + 1, B, L // (self.min_word + 1) + 1)
        ends = (words + 1).cumsum(1) - 1  # where `|` stands
        lots = draw(0, n, B, L + 2).scatter(1, ends.clamp_max(L + 1), n)[:, : L + 1]
        states, edges = automata.walk(lots, n)
        within = lots < n
        edge = torch.arange(self.max_edges, device=device)
        legal = torch.where(edge < automata.n_edges, automata.symbols + 1, IGNORE)  # (B, S, E)
        legal = legal.gather(1, states[..., None].expand(-1, -1, self.max_edges))  # (B, L + 1, E)
        tokens = torch.where(within, legal.gather(2, edges[..., None])[..., 0], 0)
        known = self._same_before(torch.cat([tokens[:, :1] * 0, tokens], 1))[:, 1:-1] >= 0
        dense = torch.where(known, tokens[:, 1:], IGNORE)
        targets = dense.clone()
        targets[:, : self.apart_by - 1] = IGNORE
        other = known[..., None] & (legal[:, 1:] != tokens[:, 1:, None])
        inputs = tokens[:, :-1].contiguous()
        return Batch(inputs, targets, dense, torch.where(other, legal[:, 1:], IGNORE))

    def tested(self) -> Regbench:
        """Return the task of a test set, whose automata are all new."""
        return dataclasses.replace(self, n_automata=0)

    def oracle(self, inputs: Tensor) -> Tensor:
        """Name what came next in the last word that began like the current one."""
        import torch

        whole = inputs.shape[1] == self.seqlen  # so the first word is seen from its start
        start = torch.zeros_like(inputs[:, :1])
        # Whatever the last position is followed by, it asks for a symbol.
        tokens = torch.cat([start if whole else start - 1, inputs, start + 1], 1)
        before = self._same_before(tokens)[:, 1:-1]
        answers = tokens.gather(1, before + 1)
        return torch.where(before >= 0, answers, UNKNOWN)

    def window_guess(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Name what followed the same tokens, as many as there are up to four.

        The best guess would weigh all automata; this one is a lower bound.
        """
        return backing_off(*(self._after(n) for n in (4, 3, 2, 1)))(inputs)[:, -1]

    def _after(self, length: int) -> Callable[[Tensor], Tensor]:
        return partial(after_match, length=length, low=1, high=self.vocab_size)

    def _same_before(self, tokens: Tensor) -> Tensor:
        """Return (B, T): the latest earlier position in the same state that a symbol follows.

        It is -1 where no word that began alike went on, before `|` and the end, and before the
        first `|`, which a whole example is given in front.
        """
        import torch

        position = torch.arange(tokens.shape[1], device=tokens.device)
        start = torch.where(tokens == 0, position, -1).cummax(1).values
        # What the word holds so far, as a sum of 64 random bits for each place and symbol.
        bits = _mixed((position - start) * self.vocab_size + tokens).cumsum(1)
        ids = bits - bits.gather(1, start.clamp_min(0))
        ends = (start < 0).logical_or_(torch.nn.functional.pad(tokens[:, 1:] <= 0, (0, 1)))
        before = previous_occurrence(torch.where(ends, -1 - position, ids))
        return torch.where(ends, UNKNOWN, before)


@lru_cache(maxsize=4)
def _pool(task: Regbench, device: torch.device) -> Automata:
    """Return the automata of training, the same on every device and for every seed and length."""
    import torch

    generator = torch.Generator().manual_seed(_POOL_SEED)
    pool = draw_automata(task.n_automata, task.vocab_size - 1, task._ranges, generator)
    return pool.to(device)


def _mixed(numbers: Tensor) -> Tensor:
    """Return int64 whose bits depend on the numbers as if drawn at random, the same each time."""
    mixed = (numbers + 1) * -7046029254386353131
    mixed = (mixed ^ (mixed >> 30)) * -4658895280553007687
    mixed = (mixed ^ (mixed >> 27)) * -7723592293110705685
    return mixed ^ (mixed >> 31)
