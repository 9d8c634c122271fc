from __future__ import annotations

import cmath
import math

import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.filters.released import ReleasedFilter


@pytest.mark.parametrize(("n_filters", "max_seqlen"), [(1, 66), (2, 9), (3, 1)])
def test_taps_are_those_of_the_released_formula(n_filters: int, max_seqlen: int) -> None:
    torch.manual_seed(0)
    D, P = 4, max_seqlen
    family = ReleasedFilter(n_filters, D, P, emb_dim=7, filter_init_std=0.4).double()
    torch.nn.init.uniform_(family.sine.freq, 0.5, 2.0)
    slow, fast = math.log(100) / 1.5, math.log(100) / 0.3
    with torch.no_grad():
        for t, found in enumerate(family(P).unbind(-1)):
            turns = [cmath.exp(-2j * math.pi * f * t / P) for f in (1e-4, 1.00005, 2.0)]
            when = t / max(1, P - 1)
            values = [when, *(z.real for z in turns), *(z.imag for z in turns)]
            x = torch.tensor(values, dtype=torch.float64)
            for layer in family.inner:
                x = torch.sin(family.sine.freq * (layer.weight @ x + layer.bias))
            h = family.last.weight @ x
            for d in range(D):
                for n in range(n_filters):
                    c = d * n_filters + n
                    alpha = slow + (fast - slow) * c / (n_filters * D - 1)
                    expected = h[c] * math.exp(-alpha * when)
                    torch.testing.assert_close(found[n, d], expected, rtol=1e-12, atol=1e-12)


def test_an_even_number_of_features_raises() -> None:
    with pytest.raises(ConfigError, match="emb_dim is 4: expected an odd number"):
        ReleasedFilter(1, 4, 8, emb_dim=4)
