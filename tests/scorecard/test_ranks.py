from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.report.survival import Outcome
from mechbench.scorecard.ranks import Rank, rank


def seeds(*tokens: int) -> list[Outcome]:
    """Outcomes of seeds; negative: given up then."""
    return [Outcome(abs(n), n > 0) for n in tokens]


def test_the_fewest_tokens_are_first() -> None:
    others = [seeds(5, 5, 5), seeds(9, 9, 9), seeds(-20, -20, -20)]
    assert rank(seeds(6, 7, 8), others) == Rank(2, 2, 2, 2, 4)
    assert rank(seeds(1, 1, 1), others) == Rank(1, 1, 1, 1, 4)


def test_what_is_given_up_is_behind_what_was_solved_by_then_alone() -> None:
    others = [seeds(5, 5, 5), seeds(90, 90, 90), seeds(-20, -20, -20)]
    assert rank(seeds(-20, -20, -20), others) == Rank(2, 4, 2, 4, 4)
    assert rank(seeds(-100, -100, -100), others) == Rank(3, 4, 3, 4, 4)
    # Those given up at 20 may be solved sooner than at 50.
    assert rank(seeds(50, 50, 50), others) == Rank(2, 3, 2, 3, 4)


def test_seeds_that_differ_widen_the_interval() -> None:
    found = rank(seeds(4, 6, 20), [seeds(5, 5, 5), seeds(10, 10, 10)])
    assert found == Rank(2, 2, 1, 3, 3)


def test_alone_there_is_no_place() -> None:
    assert rank(seeds(5), []) is None
    assert rank([], [seeds(5)]) is None


outcomes = st.lists(
    st.builds(Outcome, tokens=st.integers(1, 50), solved=st.booleans()), min_size=1, max_size=5
)


@given(outcomes, st.lists(outcomes, min_size=1, max_size=5))
def test_places_lie_in_their_interval(own: list[Outcome], others: list[list[Outcome]]) -> None:
    found = rank(own, others)
    assert found is not None
    assert 1 <= found.first <= found.last <= found.of == len(others) + 1
    assert 1 <= found.low <= found.high <= found.of


@pytest.mark.parametrize("seed", [0, 1])
def test_draws_depend_on_the_seed_alone(seed: int) -> None:
    own, others = seeds(4, 6, 20), [seeds(5, -9, 7), seeds(3, 10, 12)]
    assert rank(own, others, seed) == rank(own, others, seed)
