from __future__ import annotations

import pytest
import torch

from mechbench.training.likeness import check_like


def test_only_a_tensor_of_the_same_form_is_alike() -> None:
    expected = torch.zeros(2, 3)
    check_like("it", torch.ones(2, 3), expected)
    for value in (
        None, 1.0, torch.zeros(3, 2), torch.zeros(6), expected.double(), expected.to_sparse(),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="it does not fit the model"):
            check_like("it", value, expected)
