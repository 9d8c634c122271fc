from __future__ import annotations

import cmath
import math

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.filters.fno import FNOFilter


@pytest.mark.parametrize(
    ("period", "n_modes"), [(1, 64), (2, 64), (7, 64), (8, 64), (8, 2), (30, 9)]
)
def test_equals_the_sum_of_oscillations(period: int, n_modes: int) -> None:
    torch.manual_seed(0)
    filters = FNOFilter(1, 2, period, n_modes=n_modes).double()
    taps = filters(period)
    for d in range(2):
        for t in range(period):
            total = 0.0
            for k, (re, im) in enumerate(filters.spectrum[0, d].tolist()):
                total += (complex(re, im) * cmath.exp(2j * math.pi * k * t / period)).real
            assert abs(taps[0, d, t] - total) < 1e-12


def test_frequencies_above_half_a_turn_a_tap_are_left_out() -> None:
    assert FNOFilter(1, 2, 30, n_modes=64).spectrum.shape[2] == 16


def test_a_full_convolution_starts_at_unit_variance() -> None:
    torch.manual_seed(0)
    energy = FNOFilter(1, 200, 256)(256).square().sum(-1).mean()
    assert 0.8 < energy < 1.2


def test_no_modes_raise() -> None:
    with pytest.raises(ConfigError, match="n_modes is 0"):
        FNOFilter(1, 3, 20, n_modes=0)
