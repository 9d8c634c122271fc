from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.operators.hyena_se import HyenaSE
from mechbench.training.optimiser import make_optimizer
from operators.fidelity import assert_true_to_source
from operators.gated_conv import tap_by_tap

D = 6


def build(**options: int) -> HyenaSE:
    torch.manual_seed(0)
    return HyenaSE(D, 64, **options).double()


def inputs(length: int = 21) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"n_taps": 4, "n_groups": 3}, {"n_groups": 6}])
@pytest.mark.parametrize("length", [1, 5, 21])
def test_equals_the_sum_over_taps(options: dict[str, int], length: int) -> None:
    op, u = build(**options), inputs(length)
    with torch.no_grad():
        assert_true_to_source(op, op(u), tap_by_tap(op, u, op.inner.tolist()))


def test_gradients_are_finite_and_reach_the_shared_filter_from_every_channel() -> None:
    op = build(n_groups=1)
    u = inputs().requires_grad_()
    op(u)[..., 0].sum().backward()
    assert op.inner.grad is not None
    assert (op.inner.grad != 0).all()


def test_no_more_than_the_last_taps_are_seen() -> None:
    op, u = build(n_taps=4), inputs().requires_grad_()
    op(u)[:, -1].sum().backward()
    seen = u.grad.abs().amax((0, 2)) > 0
    assert seen.tolist() == [t >= 21 - (4 + 3 - 1) for t in range(21)]


def test_sizes_and_starts_are_those_released() -> None:
    torch.manual_seed(0)
    op = HyenaSE(512, 64)
    assert op.inner.shape == (32, 7)
    assert op.skip is None
    assert 0.5 < op.inner.abs().max() < 3**-0.5
    for group in make_optimizer(op, lr=4e-3, weight_decay=0.1).param_groups:
        if any(parameter is op.inner for parameter in group["params"]):
            assert group["weight_decay"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_taps": 0}, "n_taps is 0: expected at least 1"),
        ({"n_groups": -1}, "n_groups is -1: expected 0 or more"),
        ({"n_groups": 4}, "n_groups is 4: expected a divisor of 6 channels"),
        ({"short_filter": 0}, "short_filter is 0: expected at least 1"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HyenaSE(D, 64, **options)
