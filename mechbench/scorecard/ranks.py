"""Which place an operator has among others at a task, as far as seeds and budgets tell. No torch.

A cell that was given up may be solved later, so it is behind those alone that were solved by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechbench.record.seeds import derive
from mechbench.report.survival import Outcome

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

_DRAWS = 2000
_EDGES = 2.5, 97.5  # percent


@dataclass(frozen=True)
class Rank:
    """A place among `of` operators, the own one among them; 1 is the fewest tokens.

    Attributes:
        first, last: the places that the results leave open; the same where all are solved.
        low, high: the same for seeds drawn again, the 95 % interval.
        of: number of operators.
    """

    first: int
    last: int
    low: int
    high: int
    of: int


def rank(own: Sequence[Outcome], others: Sequence[Sequence[Outcome]], seed: int = 0) -> Rank | None:
    """Return the place of an operator by the median of its tokens to solve; None if it is alone.

    The interval is a percentile bootstrap over the seeds of every operator.

    Args:
        own: outcomes of its seeds.
        others: those of each other operator.
        seed: of the draws.
    """
    import numpy as np

    if not own or not others:
        return None
    generator = np.random.default_rng(derive(seed, "rank"))
    places = []
    for draws in (0, _DRAWS):
        solved, tokens = _median(own, draws, generator)
        first, last = np.ones(len(tokens)), np.ones(len(tokens))
        for outcomes in others:
            theirs, at = _median(outcomes, draws, generator)
            first += theirs & np.where(solved, at < tokens, at <= tokens)
            last += ~solved | (at < tokens)
        places.append((first, last))
    (one, two), (low, high) = places
    return Rank(
        int(one[0]),
        int(two[0]),
        int(np.floor(np.percentile(low, _EDGES[0]))),
        int(np.ceil(np.percentile(high, _EDGES[1]))),
        len(others) + 1,
    )


def _median(
    outcomes: Sequence[Outcome], draws: int, generator: np.random.Generator
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], Array]:
    """Return of draws of the seeds whether half are solved, and by or without how many tokens.

    Args:
        outcomes: of the seeds.
        draws: 0: the seeds as they are, once.
        generator: of the draws.
    """
    import numpy as np

    n = len(outcomes)
    picked = generator.integers(n, size=(draws, n)) if draws else np.arange(n)[None]
    tokens = np.array([o.tokens for o in outcomes], dtype=np.float64)
    solved = np.array([o.solved for o in outcomes])
    middle = (n - 1) // 2
    to_solve = np.sort(np.where(solved, tokens, np.inf)[picked])[:, middle]
    without = np.sort(np.where(solved, np.inf, tokens)[picked])[:, ::-1][:, middle]
    done = np.isfinite(to_solve)
    return done, np.where(done, to_solve, without)
