from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.tasks.first_occurrence import first_occurrence


@given(
    rows=st.integers(1, 20).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-5, 5), min_size=n, max_size=n), min_size=1, max_size=4
        )
    )
)
def test_it_is_the_index_of_the_first_equal_entry(rows: list[list[int]]) -> None:
    found = first_occurrence(torch.tensor(rows)).tolist()
    assert found == [[row.index(entry) for entry in row] for row in rows]
