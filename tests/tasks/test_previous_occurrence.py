from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.tasks.previous_occurrence import previous_occurrence


@given(
    row=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    n=st.integers(1, 6),
    small=st.booleans(),
)
def test_it_is_the_nth_last_earlier_place(row: list[int], n: int, small: bool) -> None:
    ids = torch.tensor([row, row], dtype=torch.int16 if small else torch.int64)
    expected = []
    for t, token in enumerate(row):
        earlier = [i for i in range(t) if row[i] == token]
        expected.append(earlier[-n] if len(earlier) >= n else -1)
    found = previous_occurrence(ids, n)
    assert found.dtype == torch.int64
    assert found.tolist() == [expected] * 2
