from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.mamba2 import Mamba2
from operators.fidelity import assert_true_to_source

D, L, H, N, E = 4, 13, 2, 3, 8


def build(**options: Any) -> Mamba2:
    torch.manual_seed(0)
    return Mamba2(D, 64, n_heads=H, d_state=N, **options).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
def test_equals_the_recurrence_written_naively(chunk: int) -> None:
    op, u = build(chunk=chunk), inputs()
    with torch.no_grad():
        z, xbc, dt = (u @ op.in_proj.weight.T).split([E, E + 2 * N, H], -1)
        conv = torch.zeros_like(xbc)
        for t in range(L):
            for lag in range(min(4, t + 1)):
                conv[:, t] += op.short_weight[:, lag] * xbc[:, t - lag]
            conv[:, t] += op.short_bias
        x, b, c = silu(conv).split([E, N, N], -1)
        y = torch.zeros(2, L, E).double()
        for i in range(2):
            for head in range(H):
                part = slice(head * E // H, (head + 1) * E // H)
                state = torch.zeros(N, E // H).double()
                for t in range(L):
                    step = math.log1p(math.exp(dt[i, t, head] + op.decay.bias[head]))
                    rate = -math.exp(op.decay.log_rate[head])
                    state = math.exp(step * rate) * state
                    state = state + step * torch.outer(b[i, t], x[i, t, part])
                    y[i, t, part] = c[i, t] @ state + op.skip[head] * x[i, t, part]
        y = y * silu(z)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * op.norm.weight
        assert_true_to_source(op, op(u), y @ op.out_proj.weight.T)


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, H, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        z, x, *_ = op._signals(u)
        y = (matrix @ x).transpose(1, 2).flatten(2)
        y = op.out_proj(op.norm(y * silu(z)))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


def test_defaults_are_those_of_the_released_code() -> None:
    op = Mamba2(128, 4)
    assert (op.n_heads, op.convolved, op.short_weight.shape[1]) == (4, [256, 128, 128], 4)
    assert torch.equal(op.skip, torch.ones(4))


@pytest.mark.parametrize(
    "options", [{"n_heads": 3}, {"n_heads": -1}, {"chunk": 0}, {"d_state": 0}, {"expand": 0}]
)
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Mamba2(D, 64, **options)
