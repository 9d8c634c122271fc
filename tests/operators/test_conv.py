from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.conv import Conv
from operators.fidelity import assert_true_to_source

D, L = 5, 13


def build(**options: int) -> Conv:
    torch.manual_seed(0)
    return Conv(D, 64, **options).double()


def inputs(length: int = L) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, generator=generator, dtype=torch.float64)


def tap_by_tap(op: Conv, u: Tensor) -> Tensor:
    x, gate = (u @ op.in_proj.weight.T + op.in_proj.bias).split(D, -1)
    rows = []
    for t in range(u.shape[1]):
        total = torch.zeros_like(x[:, 0])
        for lag in range(op.short_weight.shape[1]):
            if lag <= t:
                total = total + op.short_weight[:, lag] * x[:, t - lag]
        rows.append(total * gate[:, t] / (1 + torch.exp(-gate[:, t])))
    return torch.stack(rows, 1) @ op.out_proj.weight.T + op.out_proj.bias


@pytest.mark.parametrize("short_filter", [1, 2, 4, 20])
@pytest.mark.parametrize("length", [1, 3, L])
def test_equals_the_sum_over_taps(short_filter: int, length: int) -> None:
    op, u = build(short_filter=short_filter), inputs(length)
    with torch.no_grad():
        assert_true_to_source(op, op(u), tap_by_tap(op, u))


@pytest.mark.parametrize("short_filter", [1, 4])
def test_no_more_than_the_last_taps_are_seen(short_filter: int) -> None:
    op, u = build(short_filter=short_filter), inputs().requires_grad_()
    op(u)[:, -1].sum().backward()
    seen = u.grad.abs().amax((0, 2)) > 0
    assert seen.tolist() == [t >= L - short_filter for t in range(L)]


@pytest.mark.parametrize("length", [2, L])
def test_materialized_matrix_is_causal_and_gives_the_fast_path(length: int) -> None:
    op, u = build(), inputs(length)
    H = mechbench.materialize(op, u)
    assert H.shape == (2, D, length, length)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        x = op.in_proj(u).transpose(1, 2)[:, :D]
        y = op.out_proj((H @ x[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("short_filter", [0, 2**10 + 1])
def test_taps_out_of_range_raise(short_filter: int) -> None:
    with pytest.raises(ConfigError, match=f"short_filter is {short_filter}: expected"):
        Conv(D, 64, short_filter=short_filter)
