from __future__ import annotations

import pytest
import torch

from mechbench.tasks.cut_pair import cut_pair_guess


# Keys of two tokens of 0 to 6, values of one or two of 7 to 14, padding 15.
@pytest.mark.parametrize(
    ("window", "guess"),
    [
        ([1, 9, 10, 3, 4, 8, 5, 1], 9),  # what is left of the key cut ends the current one
        ([1, 9, 10, 3, 4, 8, 5, 1, 9], 10),
        ([1, 9, 10, 3, 4, 8, 5, 2], 7),  # it does not: any value is as likely
        ([1, 9, 10, 3, 4, 8, 5, 1, 12], 7),  # the value is another
        ([1, 9, 10, 3, 4, 8, 5, 1, 7], 8),  # no value has a token twice
        ([10, 3, 4, 8, 5, 1], 10),  # of a value cut
        ([3, 4, 8, 9], -1),  # the value is over
        ([15, 15, 15], -1),
        ([4], -1),  # no key has room
    ],
)
def test_a_cut_pair_is_taken_for_the_current_keys(window: list[int], guess: int) -> None:
    inputs = torch.tensor([window])
    found = cut_pair_guess(inputs, torch.tensor([50]), 2, 2, n_keys=7, n_values=8)
    assert found.tolist() == [guess]
