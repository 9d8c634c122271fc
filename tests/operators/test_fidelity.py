from __future__ import annotations

import pytest
import torch
from torch import nn

from mechbench.operators.fidelity import Fidelity
from operators.fidelity import assert_true_to_source


class Layer(nn.Identity):
    fidelity = (Fidelity("itself", 1e-3), Fidelity("a twin", 1e-1, variant="rough=true"))


def test_an_operator_is_held_to_the_error_it_states() -> None:
    y = torch.ones(1, 2, 3)
    assert_true_to_source(Layer(), y, y + 5e-4)
    with pytest.raises(AssertionError, match=r"1\.0e-02 above the stated 1e-03"):
        assert_true_to_source(Layer(), y, y * 1.0101)
    assert_true_to_source(Layer(), y, y * 1.0101, "rough=true")
