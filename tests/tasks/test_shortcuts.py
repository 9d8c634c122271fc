from __future__ import annotations

import torch

from mechbench.tasks.shortcuts import latest, most_frequent

INPUTS = torch.tensor([[9, 2, 5, 5, 3, 9, 9], [0, 3, 3, 2, 9, 9, 9]])


def test_most_frequent_counts_the_range_only() -> None:
    assert most_frequent(INPUTS, 2, 6).tolist() == [[5] * 7, [3] * 7]
    assert most_frequent(INPUTS, 0, 10).tolist() == [[9] * 7, [9] * 7]


def test_latest_is_unknown_before_the_first() -> None:
    assert latest(INPUTS, 2, 6).tolist() == [[-1, 2, 5, 5, 3, 3, 3], [-1, 3, 3, 2, 2, 2, 2]]
