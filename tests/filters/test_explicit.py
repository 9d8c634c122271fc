from __future__ import annotations

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.filters.explicit import ExplicitFilter


def test_first_taps_are_the_parameters_and_the_rest_is_zero() -> None:
    filters = ExplicitFilter(2, 3, 20, n_taps=5)
    assert torch.equal(filters(9)[..., :5], filters.taps)
    assert torch.equal(filters(9)[..., 5:], torch.zeros(2, 3, 4))
    assert torch.equal(filters(2), filters.taps[..., :2])


def test_no_parameters_beyond_the_longest_input() -> None:
    assert ExplicitFilter(1, 3, 20, n_taps=64).taps.shape == (1, 3, 20)


def test_no_taps_raise() -> None:
    with pytest.raises(ConfigError, match="n_taps is 0"):
        ExplicitFilter(1, 3, 20, n_taps=0)
