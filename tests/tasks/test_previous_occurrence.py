from __future__ import annotations

import torch

from mechbench.tasks.previous_occurrence import previous_occurrence


def test_each_entry_names_the_latest_earlier_one(device: str) -> None:
    ids = torch.tensor([[7, 2, 7, 7, 2, 5], [1, 1, 1, 0, 1, 0]], device=device)
    expected = [[-1, -1, 0, 2, 1, -1], [-1, 0, 1, -1, 2, 3]]
    assert previous_occurrence(ids).tolist() == expected


def test_the_narrowest_rows_have_none_before() -> None:
    assert previous_occurrence(torch.tensor([[3], [3]])).tolist() == [[-1], [-1]]
    assert previous_occurrence(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0)
