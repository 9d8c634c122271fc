from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.operators.hyena_mr import HyenaMR
from mechbench.training.optimiser import make_optimizer
from operators.fidelity import assert_true_to_source
from operators.gated_conv import tap_by_tap

D = 6


def build(**options: Any) -> HyenaMR:
    torch.manual_seed(0)
    op = HyenaMR(D, 64, **options).double()
    with torch.no_grad():  # as after training: taps that matter
        op.free.copy_(torch.randn_like(op.free))
    return op


def inputs(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, generator=generator, dtype=torch.float64)


def taps(op: HyenaMR, slow: float, fast: float) -> list[list[float]]:
    free = op.free.tolist()
    out = []
    for g, row in enumerate(free):
        place = g / (len(free) - 1) if len(free) > 1 else 0
        alpha = 10 ** ((1 - place) * math.log10(slow) + place * math.log10(fast))
        out.append([w * math.exp(-alpha * t / 8191) for t, w in enumerate(row)])
    return out


@pytest.mark.parametrize(
    ("options", "slow", "fast"),
    [
        ({}, 1e-2, 1e2),
        ({"n_groups": 3, "n_taps": 9}, 1e-2, 1e2),
        ({"n_groups": 6, "slow_decay": 5.0, "fast_decay": 3e3}, 5.0, 3e3),
        ({"n_groups": 2, "slow_decay": 7.0, "fast_decay": 7.0, "n_taps": 33}, 7.0, 7.0),
    ],
)
@pytest.mark.parametrize("length", [1, 8, 47])
def test_equals_the_sum_over_taps(
    options: dict[str, Any], slow: float, fast: float, length: int
) -> None:
    op, u = build(**options), inputs(length)
    with torch.no_grad():
        assert_true_to_source(op, op(u), tap_by_tap(op, u, taps(op, slow, fast)))


def test_sizes_starts_and_decays_are_those_released() -> None:
    torch.manual_seed(0)
    op = HyenaMR(512, 8192)
    assert op.free.shape == (32, 128)
    assert abs(op.free.detach().std() * 128**0.5 / 1e-5 - 1) < 0.05
    assert op.skip is not None
    rates = -8191 / 127 * op.decay[:, 127].log()
    assert rates[0] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e2)
    for group in make_optimizer(op, lr=4e-3, weight_decay=0.1).param_groups:
        if any(parameter is op.free for parameter in group["params"]):
            assert group["weight_decay"] == 0


def test_single_and_double_precision_have_the_same_decays() -> None:
    single, double = HyenaMR(64, 64), HyenaMR(64, 64).double()
    assert single.filters(64).dtype == torch.float32
    assert double.decay.dtype == torch.float64
    torch.testing.assert_close(single.float().decay.double(), double.decay, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_taps": 0}, "n_taps is 0: expected at least 1"),
        ({"n_groups": 4}, "n_groups is 4: expected a divisor of 6 channels"),
        ({"slow_decay": 0.0}, "slow_decay is 0.0: expected a positive number"),
        (
            {"slow_decay": 2.0, "fast_decay": 1.0},
            r"slow_decay is 2.0: expected at most fast_decay \(1.0\)",
        ),
    ],
)
def test_options_out_of_range_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HyenaMR(D, 64, **options)
