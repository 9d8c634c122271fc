from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.gated_deltanet import GatedDeltaNet
from operators.delta_slow import convolved, normalised, rms_normed, silu
from operators.fidelity import assert_true_to_source

D, L, H = 4, 13, 2


def build(**options: Any) -> GatedDeltaNet:
    torch.manual_seed(0)
    return GatedDeltaNet(D, 64, n_heads=H, **options).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize(("chunk", "expand_v"), [(1, 2), (4, 1), (7, 2), (64, 3)])
def test_equals_the_recurrence_written_naively(chunk: int, expand_v: int, reach: int) -> None:
    op, u = build(chunk=chunk, expand_v=expand_v, allow_neg_eigval=reach == 2), inputs()
    E, d = expand_v * D, D // H
    with torch.no_grad():
        qkv, (gate, a, b) = convolved(op, u)
        q, k, v = qkv.split([D, D, E], -1)
        y = torch.zeros(2, L, E).double()
        for i in range(2):
            for head in range(H):
                keys = slice(head * d, (head + 1) * d)
                values = slice(head * E // H, (head + 1) * E // H)
                state = torch.zeros(d, E // H).double()
                for t in range(L):
                    query, key = normalised(q[i, t, keys]), normalised(k[i, t, keys])
                    step = math.log1p(math.exp(a[i, t, head] + op.decay.bias[head]))
                    alpha = math.exp(-math.exp(op.decay.log_rate[head]) * step)
                    beta = reach / (1 + math.exp(-b[i, t, head]))
                    erase = torch.eye(d).double() - beta * torch.outer(key, key)
                    state = alpha * erase @ state + beta * torch.outer(key, v[i, t, values])
                    y[i, t, values] = rms_normed(query @ state / math.sqrt(d), op.norm.weight)
        expected = (y * silu(gate)) @ op.out_proj.weight.T
        assert_true_to_source(op, op(u), expected)


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, H, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        signals = op.signals(u)
        y = op.norm(matrix @ signals.v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(op(u), op.out_proj(y * silu(signals.gate)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"n_heads": 3}, {"n_heads": -1}, {"chunk": 0}, {"expand_v": 0}]
)
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        GatedDeltaNet(D, 64, **options)


def test_rates_start_between_the_least_and_sixteen() -> None:
    for least in (0.0, 1.0):
        torch.manual_seed(0)
        rates = GatedDeltaNet(512, 8, n_heads=256, min_rate=least).decay.log_rate.exp()
        assert least <= rates.min() < least + 0.5
        assert 15 < rates.max() < 16.001
