from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.hyena import Hyena
from mechbench.training.optimiser import make_optimizer
from operators.fidelity import assert_true_to_source

D, L = 3, 11
SHAPES = [("paper", n) for n in (1, 2, 3, 4)] + [("released", n) for n in (2, 3, 4)]


def build(variant: str = "released", order: int = 2, **given: Any) -> Hyena:
    torch.manual_seed(order)
    # Filters as large as the skip, so that an error in either shows.
    options = {"filter_init_std": 0.4, "filter_norm": "l1", **given}
    given = {"variant": variant, "order": order, **options}
    return mechbench.make_operator("hyena", d_model=D, max_seqlen=16, **given).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def signals_by_hand(op: Hyena, u: Tensor) -> list[Tensor]:
    """v, x^1 .. x^N, each (B, L, D): a linear map, then taps on lags 0, 1, 2."""
    p = u @ op.in_proj.weight.T + op.in_proj.bias
    out = torch.zeros_like(p)
    for t in range(L):
        for k in range(min(3, t + 1)):
            out[:, t] += op.short_weight[:, k] * p[:, t - k]
        out[:, t] += op.short_bias
    return list(out.split(D, -1))


def long_conv_by_hand(op: Hyena, n: int, z: Tensor) -> Tensor:
    h = op.filter(L)[n]
    y = torch.zeros_like(z)
    for t in range(L):
        for s in range(t + 1):
            y[:, t] += h[:, t - s] * z[:, s]
    return y + op.skip[n] * z


@pytest.mark.parametrize(("variant", "order"), SHAPES)
def test_fast_path_equals_the_formula_of_its_variant(variant: str, order: int) -> None:
    op, u = build(variant, order), inputs()
    with torch.no_grad():
        z, *x = signals_by_hand(op, u)
        if variant == "paper":  # Definition 3.1
            for n in range(order):
                z = x[n] * long_conv_by_hand(op, n, z)
        else:
            for n in range(order - 1):
                z = long_conv_by_hand(op, n, x[n] * z)
            z = x[-1] * z
        expected = z @ op.out_proj.weight.T + op.out_proj.bias
        assert_true_to_source(op, op(u), expected)


@pytest.mark.parametrize(("variant", "order"), SHAPES)
def test_materialized_matrix_is_causal_and_equals_the_fast_path(variant: str, order: int) -> None:
    op, u = build(variant, order), inputs()
    H = mechbench.materialize(op, u)
    assert H.shape == (2, D, L, L)
    assert not H.requires_grad
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        v, _ = op.signals(u)
        y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


def test_order_two_as_released_has_one_long_convolution_and_the_paper_two() -> None:
    assert len(build("released", 2).filter(L)) == 1
    assert len(build("paper", 2).filter(L)) == 2


@pytest.mark.parametrize(("variant", "order"), [("released", 1), ("released", 0), ("paper", 0)])
def test_order_that_the_variant_does_not_define_raises(variant: str, order: int) -> None:
    with pytest.raises(ConfigError, match=f"order is {order}: variant '{variant}' needs at least"):
        build(variant, order)


def test_options_reach_the_filter() -> None:
    op = build(filter_time="relative", filter_norm="length", window_shift=0.5, emb_dim=7)
    assert (op.filter.time, op.filter.norm, op.filter.shift) == ("relative", "length", 0.5)
    assert op.filter.ffn[0].in_features == 7


@pytest.mark.parametrize("filter_lr", [None, 7e-4])
def test_filters_have_no_weight_decay_and_their_own_learning_rate(filter_lr: float | None) -> None:
    op = build(filter_lr=filter_lr)
    optimizer = make_optimizer(op, lr=4e-3, weight_decay=0.1)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for parameter in op.filter.parameters():
        group = found[id(parameter)]
        assert group["weight_decay"] == 0.0
        assert group["lr"] == group["peak_lr"] == (4e-3 if filter_lr is None else filter_lr)
    assert found[id(op.skip)]["weight_decay"] == 0.0
    assert found[id(op.skip)]["lr"] == 4e-3
    assert found[id(op.in_proj.weight)]["weight_decay"] == 0.1


def test_unknown_backend_raises() -> None:
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        build(backend="torhc")(inputs())
