"""Outcomes for the tests of what is solved after how many tokens."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from mechbench.report.survival import Outcome

# Few values, so that ties are common.
CELLS = st.lists(st.builds(Outcome, st.integers(1, 8), st.booleans()), min_size=1, max_size=12)


def cells(solved: Sequence[float] = (), given_up: Sequence[float] = ()) -> list[Outcome]:
    return [Outcome(t, True) for t in solved] + [Outcome(t, False) for t in given_up]
