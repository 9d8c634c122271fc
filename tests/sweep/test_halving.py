from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechbench.report.tuning import Reading, best, tied
from mechbench.sweep.halving import Halving, fewest, halve, kept, rungs

B = 1 << 20
Curves = Mapping[float, Sequence["Curve"]]


class Curve:
    """One cell: solved after so many tokens or never, and its accuracy on the way."""

    def __init__(self, solves: float, accuracies: Sequence[float], diverges: float = math.inf):
        self.solves, self.accuracies, self.diverges = solves, accuracies, diverges

    def at(self, budget: int) -> Reading:
        if self.solves <= min(budget, self.diverges):
            return Reading(self.solves, True, 1.0, over=True)
        if self.diverges <= budget:
            return Reading(budget, False, 0.0, over=True)
        i = sum(rung <= budget for rung in (B // 4, B // 2, B))
        return Reading(budget, False, self.accuracies[i - 1] if i else None)

    def spent(self, budget: int) -> float:
        return min(budget, self.solves, self.diverges)


def never(*accuracies: float) -> list[Curve]:
    return [Curve(math.inf, accuracies)]


def searched(curves: Curves, order: Sequence[int] = ()) -> tuple[Halving, dict[float, int]]:
    """Train until a rate is chosen, cells in any order; return how far each rate was trained."""
    rates = sorted(curves)
    budgets = rungs(len(rates), B)
    stands = dict.fromkeys(rates, 0)
    reached = {(lr, i): 0 for lr in rates for i in range(len(curves[lr]))}

    def read(lr: float, budget: int) -> list[Reading] | None:
        cells = curves[lr]
        if any(
            reached[lr, i] < budget and may_go_on(cell, reached[lr, i])
            for i, cell in enumerate(cells)
        ):
            return None
        return [cell.at(budget) for cell in cells]

    picks = itertools.cycle(order or [0])
    for _ in range(1000):
        state = halve(rates, budgets, read)
        if state.chosen is not None:
            return state, stands
        due = [
            (lr, i)
            for lr, i in sorted(reached)
            if reached[lr, i] < state.wanted[lr] and may_go_on(curves[lr][i], reached[lr, i])
        ]
        lr, i = due[next(picks) % len(due)]
        reached[lr, i] = state.wanted[lr]
        stands[lr] = max(stands[lr], state.wanted[lr])
    raise AssertionError("it does not end")


def may_go_on(cell: Curve, reached: int) -> bool:
    """Return whether more tokens can change the cell."""
    return not reached or not cell.at(reached).over


accuracies = st.lists(st.floats(0, 0.99), min_size=3, max_size=3)
cells = st.builds(
    Curve,
    st.one_of(st.just(math.inf), st.integers(1, 2 * B).map(float)),
    accuracies,
    st.one_of(st.just(math.inf), st.integers(1, 2 * B).map(float)),
)
searches = st.integers(1, 3).flatmap(
    lambda n: st.dictionaries(
        st.sampled_from([5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]),
        st.lists(cells, min_size=n, max_size=n),
        min_size=1,
    )
)


@given(searches, st.lists(st.integers(0, 100), min_size=1, max_size=20))
@settings(deadline=None)
def test_it_ends_with_the_same_choice_in_any_order_and_no_more_than_the_grid(
    curves: Curves, order: list[int]
) -> None:
    state, stands = searched(curves)
    other, again = searched(curves, order)
    assert other == state
    assert state.chosen in curves
    assert stands == again
    assert all(1 <= stands[lr] <= B for lr in curves)  # a trial for every rate
    spent = sum(cell.spent(stands[lr]) for lr in curves for cell in curves[lr])
    assert spent <= sum(cell.spent(B) for lr in curves for cell in curves[lr])


@given(searches)
@settings(deadline=None)
def test_what_stands_stored_at_the_end_says_the_same(curves: Curves) -> None:
    """As a board has no more than the last reading of each cell."""
    state, stands = searched(curves)
    whole = {
        lr: [cell.at(B) for cell in of]
        for lr, of in curves.items()
        if stands[lr] == B or all(cell.at(stands[lr]).over for cell in of)
    }
    assert state.chosen in whole
    if len({len(of) for of in curves.values()}) == 1:
        assert best(whole) == state.chosen


@given(searches, st.integers(17, 20))
@settings(deadline=None)
def test_no_rate_is_dropped_that_is_tied_with_one_that_goes_on(curves: Curves, power: int) -> None:
    rates = {lr: [cell.at(1 << power) for cell in of] for lr, of in curves.items()}
    going = kept(rates)
    assert going
    assert best(rates) in going
    for lr in set(rates) - going:
        assert not any(tied(rates[lr], rates[other]) for other in going)


def test_a_clear_order_is_halved() -> None:
    curves = {lr: never(a, a, a) for lr, a in enumerate((0.1, 0.5, 0.3, 0.9, 0.7), 1)}
    state, stands = searched(curves)
    assert state.chosen == 4
    assert stands == {1: B // 4, 3: B // 4, 2: B // 2, 4: B, 5: B}
    assert fewest(5, 3) == [5, 3, 2]


def test_rates_on_one_plateau_all_go_on() -> None:
    lasts = {1: 0.03, 2: 0.9, 3: 0.03}
    state, stands = searched({lr: never(0.03, 0.035, last) for lr, last in lasts.items()})
    assert (state.chosen, set(stands.values())) == (2, {B})


def test_ties_are_passed_on() -> None:
    """The third is tied with the second, which is tied with the first."""
    rates = {1.0: [Reading(B, False, 0.50)], 2.0: [Reading(B, False, 0.46)]}
    rates[3.0] = [Reading(B, False, 0.42)]
    rates[4.0] = [Reading(B, False, 0.10)]
    assert kept(rates) == {1.0, 2.0, 3.0}


def test_once_a_rate_has_solved_all_the_others_cannot_be_sooner() -> None:
    late = [Curve(B // 2, (0.5,) * 3)]
    curves = {1: never(0.9, 0.9, 0.9), 2: [Curve(B // 8, (0.5,) * 3)], 3: late}
    state, stands = searched(curves)
    assert (state.chosen, stands[1], stands[3]) == (2, B // 2, B // 2)
    two = {1: [Curve(10.0, (0.5,) * 3), *never(0.9, 0.9, 0.9)]}
    two[2] = [Curve(9.0 * B, (0.5,) * 3), Curve(B, (0.5,) * 3)]
    assert searched(two)[0].chosen == 1


@pytest.mark.parametrize(
    ("n", "budget", "least", "expected"),
    [
        (1, 100, 0, (100,)), (2, 100, 0, (100,)), (3, 100, 0, (50, 100)), (4, 100, 0, (50, 100)),
        (5, 100, 0, (25, 50, 100)), (8, 100, 0, (25, 50, 100)), (9, 100, 0, (12, 25, 50, 100)),
        (5, 100, 30, (50, 100)), (5, 100, 101, (100,)),
    ],
)  # fmt: skip
def test_rungs(n: int, budget: int, least: int, expected: tuple[int, ...]) -> None:
    assert rungs(n, budget, least) == expected


def test_without_a_budget_nothing_can_be_said() -> None:
    with pytest.raises(ValueError, match="no budget"):
        halve([1e-3], [], lambda lr, budget: None)
