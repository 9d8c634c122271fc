from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.mamba import Mamba
from operators.fidelity import assert_true_to_source

D, L, N, E, R = 20, 13, 3, 40, 2


def build(**options: Any) -> Mamba:
    torch.manual_seed(0)
    return Mamba(D, 64, d_state=N, **options).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def naive(op: Mamba, u: Tensor) -> Tensor:
    """The paper's recurrence, token by token and channel by channel."""
    x, z = (u @ op.in_proj.weight.T).split(E, -1)
    conv = torch.zeros_like(x)
    for t in range(L):
        for lag in range(min(4, t + 1)):
            conv[:, t] += op.short_weight[:, lag] * x[:, t - lag]
    x = silu(conv + op.short_bias)
    dt, b, c = (x @ op.select.weight.T).split([R, N, N], -1)
    dt = dt @ op.dt_weight.T + op.dt_bias
    y = torch.zeros_like(x)
    for i in range(len(u)):
        for e in range(E):
            A, state = -op.log_rate[e].exp(), torch.zeros(N).double()
            for t in range(L):
                step = math.log1p(math.exp(dt[i, t, e]))
                state = torch.exp(step * A) * state + step * b[i, t] * x[i, t, e]
                y[i, t, e] = c[i, t] @ state + op.skip[e] * x[i, t, e]
    return (y * silu(z)) @ op.out_proj.weight.T


@pytest.mark.parametrize("chunk", [1, 4, 7, 128])
@torch.no_grad()
def test_equals_the_recurrence_written_naively(chunk: int) -> None:
    op, u = build(chunk=chunk), inputs()
    for parameter in (op.skip, op.log_rate, op.dt_bias):  # away from where they start
        parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert_true_to_source(op, op(u), naive(op, u))


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, E, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        z, x, *_ = op._signals(u)
        y = torch.einsum("bets,bse->bte", matrix, x)
        torch.testing.assert_close(op(u), op.out_proj(y * silu(z)), rtol=1e-12, atol=1e-12)


def test_defaults_and_initial_values_are_those_of_the_released_code() -> None:
    torch.manual_seed(0)
    op = Mamba(64, 4)
    assert (op.in_proj.out_features, op.short_weight.shape) == (256, (128, 4))
    assert op.selected == [4, 16, 16]
    assert op.dt_weight.abs().max() <= 0.5
    steps = torch.nn.functional.softplus(op.dt_bias)
    assert 1e-3 * 0.999 < steps.min() < 2e-3
    assert 5e-2 < steps.max() < 0.1 * 1.001
    torch.testing.assert_close(op.log_rate.exp(), torch.arange(1.0, 17.0).expand(128, 16))
    assert op.log_rate.optim == {"weight_decay": 0.0}
    assert torch.equal(op.skip, torch.ones(128))


@pytest.mark.parametrize("options", [{"chunk": 0}, {"d_state": 0}, {"expand": 0},
                                     {"short_filter": 0}])  # fmt: skip
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"{name} is 0: expected at least 1"):
        Mamba(D, 64, **options)
