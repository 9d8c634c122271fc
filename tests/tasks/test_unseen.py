from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mechbench.tasks.unseen import least_unseen


@given(
    low=st.integers(0, 5),
    size=st.integers(1, 8),
    seen=st.lists(st.integers(-2, 14), min_size=0, max_size=12),
)
def test_it_is_the_least_that_is_not_seen(low: int, size: int, seen: list[int]) -> None:
    found = least_unseen(torch.tensor([seen, seen], dtype=torch.int64), low, low + size).tolist()
    free = sorted({*range(low, low + size)} - {*seen})
    assert found == [free[0] if free else -1] * 2
