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


def test_each_entry_names_the_latest_earlier_one(device: str) -> None:
    ids = torch.tensor([[7, 2, 7, 7, 2, 5], [1, 1, 1, 0, 1, 0]], device=device)
    expected = [[-1, -1, 0, 2, 1, -1], [-1, 0, 1, -1, 2, 3]]
    assert previous_occurrence(ids).tolist() == expected


def test_the_narrowest_rows_have_none_before() -> None:
    assert previous_occurrence(torch.tensor([[3], [3]])).tolist() == [[-1], [-1]]
    assert previous_occurrence(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0)
