from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.gla import GatedLinearAttention
from operators.fidelity import assert_true_to_source

D, L = 8, 13


def build(d_model: int = D, **options: Any) -> GatedLinearAttention:
    torch.manual_seed(0)
    return GatedLinearAttention(d_model, 64, **options).double()


def inputs(d_model: int = D) -> Tensor:
    return torch.randn(2, L, d_model, generator=torch.Generator().manual_seed(5)).double()


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def slow(op: GatedLinearAttention, u: Tensor, n_heads: int, temperature: float = 16) -> Tensor:
    """Compute the layer token by token."""
    d_key, _, d_value, _, _ = op.widths
    K, P = d_key // n_heads, d_value // n_heads
    q, k, v, gate, low = (u @ op.in_proj.weight.T).split(op.widths, -1)
    logits = low @ op.decay_proj.weight.T + op.decay_proj.bias
    alpha = (1 / (1 + (-logits).exp())) ** (1 / temperature)
    rows = []
    for i in range(len(u)):
        for h in range(n_heads):
            keys, values = slice(h * K, (h + 1) * K), slice(h * P, (h + 1) * P)
            state = torch.zeros(K, P).double()
            for t in range(L):
                state = torch.diag(alpha[i, t, keys]) @ state
                state = state + torch.outer(k[i, t, keys], v[i, t, values])
                y = q[i, t, keys] @ state / math.sqrt(K)
                rows.append(y / (y.square().mean() + 1e-5).sqrt() * op.norm.weight)
    y = torch.stack(rows).view(len(u), n_heads, L, P).transpose(1, 2).flatten(2)
    return (y * silu(gate)) @ op.out_proj.weight.T


@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
@pytest.mark.parametrize(("n_heads", "expand_v"), [(4, 1), (1, 1), (2, 2)])
def test_equals_the_recurrence_written_naively(n_heads: int, expand_v: int, chunk: int) -> None:
    op, u = build(n_heads=n_heads, expand_v=expand_v, chunk=chunk), inputs()
    with torch.no_grad():
        assert_true_to_source(op, op(u), slow(op, u, n_heads))


def test_the_temperature_divides_the_logarithms_of_the_decays() -> None:
    op, u = build(gate_temperature=0.5), inputs()
    with torch.no_grad():
        assert_true_to_source(op, op(u), slow(op, u, 4, 0.5))


def test_gradients_are_those_of_the_slow_loop() -> None:
    op, u = build(n_heads=2, chunk=8), inputs().requires_grad_()
    leaves = [u, *op.parameters()]
    fast = torch.autograd.grad(op(u).square().sum(), leaves)
    expected = torch.autograd.grad(slow(op, u, 2).square().sum(), leaves)
    torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("d_model", "n_heads"), [(64, 4), (8, 4), (12, 2), (6, 1), (7, 1), (1, 1)])
def test_as_many_heads_as_fit_at_most_four(d_model: int, n_heads: int) -> None:
    op, u = build(d_model), inputs(d_model)
    assert op.n_heads == n_heads
    with torch.no_grad():
        assert_true_to_source(op, op(u), slow(op, u, n_heads))


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, 4, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        _, _, v, _, gate = op._signals(u)
        y = op.norm(matrix @ v).transpose(1, 2).flatten(2) * silu(gate)
        torch.testing.assert_close(op(u), op.out_proj(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"n_heads": 3},
        {"n_heads": 8},
        {"n_heads": -1},
        {"chunk": 0},
        {"expand_v": 0},
        {"gate_rank": 0},
        {"gate_temperature": 0.0},
    ],
)
def test_options_out_of_range_raise(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        GatedLinearAttention(D, 64, **options)
