from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.report.log_rank import best, compared, holm, log_rank, ranked
from mechbench.report.survival import Outcome
from report.outcomes import CELLS, cells


def test_p_worked_by_hand() -> None:
    """Solved at 1, 3 and 1, 4; one given up at 2.

    At 1, 2 of 5 are solved, 3 of 5 in a: expected 6/5, variance 2 * 3/5 * 2/5 * 3/4 = 9/25.
    At 3, 1 of 2, 1 of them in a: 1/2 and 1/4. At 4 one is left: nothing to tell.
    """
    a, b = cells([1, 3], [2]), cells([1, 4])
    z = (2 - 6 / 5 - 1 / 2) / math.sqrt(9 / 25 + 1 / 4)
    assert log_rank(a, b) == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_all_solved_against_none() -> None:
    """The figures of the docstrings: few cells have a least p-value."""
    for n, p in ((3, 0.0246), (4, 0.0067), (5, 0.0018)):
        one = cells(range(1, n + 1))
        assert log_rank(one, cells([], [100] * n)) == pytest.approx(p, abs=5e-5)
        assert log_rank(one, cells(range(50, 50 + n))) == pytest.approx(p, abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (cells([], [5, 5]), cells([], [9, 9, 9])),  # nothing solved
        (cells([5, 5]), cells([5, 5, 5])),  # all at once
        (cells([5, 6]), cells([], [4, 4])),  # the other was given up before
        (cells([1] * 49), cells([], [0.5])),  # 49 * (1 / 49) is not 1
    ],
)
def test_what_no_time_tells_apart_has_a_p_of_one(a: list[Outcome], b: list[Outcome]) -> None:
    with warnings.catch_warnings(action="error"):
        assert log_rank(a, b) == log_rank(b, a) == 1.0


@given(CELLS, CELLS)
def test_it_is_symmetric_and_knows_neither_order_nor_unit(
    a: list[Outcome], b: list[Outcome]
) -> None:
    p = log_rank(a, b)
    assert 0 <= p <= 1
    assert log_rank(b, a) == pytest.approx(p)
    larger = [[Outcome(o.tokens * 4096, o.solved) for o in reversed(group)] for group in (a, b)]
    assert log_rank(*larger) == pytest.approx(p)


@given(CELLS)
def test_a_group_is_not_told_from_itself(outcomes: list[Outcome]) -> None:
    assert log_rank(outcomes, outcomes) == pytest.approx(1.0)


def test_holms_correction_worked_by_hand() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.9})
    # 4 * 0.01, 3 * 0.03, then 2 * 0.04 is less than what came before
    assert found == pytest.approx({"a": 0.09, "b": 0.04, "c": 0.09, "d": 0.9})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_between_no_correction_and_bonferronis(p: dict[str, float]) -> None:
    found = holm(p)
    for a in p:
        assert p[a] <= found[a] <= min(1.0, len(p) * p[a])
        assert all(found[a] <= found[b] for b in p if p[a] < p[b])


def test_share_comes_before_tokens_and_tokens_before_names() -> None:
    groups = {
        "none": cells([], [100] * 3),
        "late": cells([80, 90, 90], []),
        "b": cells([10, 20, 30], []),
        "a": cells([10, 20, 30], []),
        "some": cells([1, 1], [100]),
    }
    assert ranked(groups) == ["a", "b", "late", "some", "none"]


def test_a_larger_budget_is_no_merit() -> None:
    """At 50 tokens, where the shorter one ends, it leads; later it was not asked."""
    short, long = cells([10, 20], [50, 50]), cells([40, 60, 70, 80], [])
    assert ranked({"long": long, "short": short}) == ["short", "long"]
    assert ranked({"a": cells([], [5, 5]), "b": cells([20, 30])}) == ["b", "a"]


def test_best_are_those_not_told_to_be_later() -> None:
    groups = {
        "soon": cells([10, 11, 12, 13, 14]),
        "as soon": cells([11, 12, 13, 14, 15]),
        "later": cells([40, 50, 60, 70, 80]),
        "never": cells([], [100] * 5),
    }
    assert best(groups) == {"soon", "as soon"}
    found = compared(groups)
    assert list(found) == ["soon", "as soon", "later", "never"]
    assert found["soon"].p == 1
    assert found["never"].p == pytest.approx(3 * 0.0018419, abs=1e-5)
    assert found["later"].later
    assert found["never"].later


def test_fewer_solved_but_sooner_is_not_later() -> None:
    groups = {"all": cells([80] * 10), "most": cells([5] * 9, [100])}
    assert ranked(groups)[0] == "all"
    assert compared(groups)["most"].p < 0.05
    assert best(groups) == {"all", "most"}


def test_nothing_solved_and_few_cells_tell_nothing() -> None:
    assert best({"a": cells([], [9] * 5), "b": cells([], [9] * 5)}) == {"a", "b"}
    assert best({"a": cells([1])}) == {"a"}
    assert best({}) == set()


@pytest.mark.parametrize(("n", "groups"), [(3, 3), (4, 8), (5, 28)])
def test_so_many_groups_can_be_told_apart_and_no_more(n: int, groups: int) -> None:
    """The figures of the docstring of `best`: one group late, the others alike."""

    def leaders(k: int) -> int:
        soon = {str(i): cells(range(1, n + 1)) for i in range(k - 1)}
        return len(best(soon | {"late": cells(range(50, 50 + n))}))

    assert leaders(groups) == groups - 1
    assert leaders(groups + 1) == groups + 1


def test_equal_operators_are_told_apart_no_more_than_the_docstring_says() -> None:
    """12 groups of five alike: any in 23 of 100 cases, a given one in 3."""
    import numpy as np

    random = np.random.default_rng(0)
    lost = [
        12
        - len(best({str(i): cells(row) for i, row in enumerate(random.exponential(size=(12, 5)))}))
        for _ in range(60)
    ]
    assert sum(count > 0 for count in lost) <= 22
    assert sum(lost) <= 0.05 * 12 * 60


@pytest.mark.parametrize("groups", [{"a": [], "b": cells([1])}, {"a": []}])
def test_an_empty_group_is_refused(groups: dict[str, list[Outcome]]) -> None:
    with pytest.raises(ValueError, match="no outcome"):
        best(groups)
    with pytest.raises(ValueError, match="no outcome"):
        log_rank(cells([1]), [])
