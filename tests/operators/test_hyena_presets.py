from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.base import depends_on_max_seqlen, operator_options
from mechbench.operators.hyena import Hyena
from mechbench.operators.hyena_weights import load_released
from operators.fidelity import assert_true_to_source
from operators.test_hyena import D, inputs, long_conv_by_hand, signals_by_hand
from operators.test_hyena_weights import by_hand, weights

NAMES = {"hyena-released": "gate-first", "hyena-paper": "paper"}


def build(name: str, order: int = 2, **given: Any) -> Hyena:
    torch.manual_seed(order)
    # Filters as large as the skip, so that an error in either shows.
    options = {"filter_init_std": 0.4, "order": order, **given}
    return mechbench.make_operator(name, d_model=D, max_seqlen=13, **options).double()


def with_gradients(operator: nn.Module, u: Tensor) -> list[Tensor]:
    y = operator(u)
    return [y, *torch.autograd.grad(y.square().sum(), list(operator.parameters()))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [2, 3])
def test_is_hyena_with_these_options(name: str, order: int) -> None:
    same = build("hyena", order, variant=NAMES[name], filter="released")
    for got, expected in zip(
        with_gradients(build(name, order), inputs()), with_gradients(same, inputs()), strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("order", [2, 3])
def test_released_weights_load_and_give_the_released_outputs(order: int) -> None:
    op = build("hyena-released", order, filter_width=8)
    released = weights(order)
    load_released(op, released)
    u = inputs()[0]
    assert_true_to_source(op, op(u[None])[0], by_hand(released, u, order))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_paper_s_recurrence(order: int) -> None:
    op, u = build("hyena-paper", order), inputs()
    with torch.no_grad():
        z, *x = signals_by_hand(op, u)
        for n in range(order):
            z = x[n] * long_conv_by_hand(op, n, z)
        expected = z @ op.out_proj.weight.T + op.out_proj.bias
    assert_true_to_source(op, op(u), expected)


@pytest.mark.parametrize("name", NAMES)
def test_filters_are_of_a_fixed_length_and_decay(name: str) -> None:
    assert build(name).filter.shift == 0
    assert depends_on_max_seqlen(name, operator_options(name, {}))
    with pytest.raises(ConfigError, match="filter_time"):
        operator_options(name, {"filter_time": "relative"})


def test_an_order_without_a_long_convolution_raises() -> None:
    with pytest.raises(ConfigError, match="order is 1: variant 'released' needs at least 2"):
        build("hyena-released", 1)
