from __future__ import annotations

import cmath
import math

import pytest
import torch

from mechbench.operators.dss import DSS


@pytest.mark.parametrize("L", [1, 6, 23])
def test_taps_are_those_of_the_papers_formula(L: int) -> None:
    torch.manual_seed(0)
    dss = DSS(3, 5).double()
    with torch.no_grad():
        taps = dss(L)
    assert taps.shape == (1, 3, L)
    for channel in range(3):
        for t in range(L):
            expected = 0.0
            for a, b, c in zip(
                dss.log_decay.tolist(), dss.log_turn.tolist(), dss.C[channel].tolist(), strict=True
            ):
                A = complex(-math.exp(a), math.exp(b))
                expected += (complex(*c) * (cmath.exp(A) - 1) / A * cmath.exp(t * A)).real
            assert taps[0, channel, t].item() == pytest.approx(expected, rel=1e-11, abs=1e-12)
