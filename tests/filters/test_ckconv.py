from __future__ import annotations

import torch

from mechbench.filters.base import own_options
from mechbench.filters.ckconv import CKConvFilter
from mechbench.filters.implicit import ImplicitFilter


def test_it_is_the_implicit_filter_over_its_window() -> None:
    made = []
    for family in (CKConvFilter, ImplicitFilter):
        torch.manual_seed(0)
        made.append(family(2, 3, 21, filter_init_std=0.3).double())
    free, windowed = (filters(21) for filters in made)
    t = torch.arange(21, dtype=torch.float64) / 20
    window = torch.exp(-made[1].alpha[:, None] * t) + made[1].shift
    torch.testing.assert_close(free * window, windowed, rtol=1e-9, atol=1e-12)


def test_its_options_are_those_of_the_implicit_filter_but_for_the_window() -> None:
    ours, theirs = own_options("ckconv"), own_options("hyena")
    assert set(theirs) - set(ours) == {"fast_decay", "slow_decay", "window_shift"}
    for name, parameter in ours.items():
        assert parameter.default == theirs[name].default
        assert parameter.annotation == theirs[name].annotation
