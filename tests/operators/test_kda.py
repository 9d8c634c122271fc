from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.kda import KimiDeltaAttention
from operators.delta_slow import convolved, normalised, rms_normed, sigmoid
from operators.fidelity import assert_true_to_source

D, L, H = 6, 13, 2


def build(**options: Any) -> KimiDeltaAttention:
    torch.manual_seed(0)
    return KimiDeltaAttention(D, 64, n_heads=H, **options).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


def slow(op: KimiDeltaAttention, u: Tensor, expand_v: int = 1, reach: int = 1) -> Tensor:
    """Compute the layer token by token."""
    E, d = expand_v * D, D // H
    qkv, (a, g, b) = convolved(op, u)
    q, k, v = qkv.split([D, D, E], -1)
    logits = a @ op.decay_proj.weight.T
    gate = sigmoid(g @ op.gate_proj.weight.T)
    rows = []
    for i in range(len(u)):
        for h in range(H):
            keys = slice(h * d, (h + 1) * d)
            values = slice(h * E // H, (h + 1) * E // H)
            state = torch.zeros(d, E // H).double()
            for t in range(L):
                query, key = normalised(q[i, t, keys]), normalised(k[i, t, keys])
                softplus = (1 + (logits[i, t, keys] + op.decay.bias[h]).exp()).log()
                alpha = (-op.decay.log_rate[h].exp() * softplus).exp()
                beta = reach * sigmoid(b[i, t, h])
                state = torch.diag(alpha) @ state
                state = (torch.eye(d).double() - beta * torch.outer(key, key)) @ state
                state = state + beta * torch.outer(key, v[i, t, values])
                rows.append(rms_normed(query @ state / math.sqrt(d), op.norm.weight))
    y = torch.stack(rows).view(len(u), H, L, E // H).transpose(1, 2).flatten(2)
    return (gate * y) @ op.out_proj.weight.T


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize(("chunk", "expand_v"), [(1, 1), (4, 1), (7, 2), (64, 1)])
def test_equals_the_recurrence_written_naively(chunk: int, expand_v: int, reach: int) -> None:
    op, u = build(chunk=chunk, expand_v=expand_v, allow_neg_eigval=reach == 2), inputs()
    with torch.no_grad():
        assert_true_to_source(op, op(u), slow(op, u, expand_v, reach))


def test_gradients_are_those_of_the_slow_loop() -> None:
    op, u = build(chunk=8), inputs().requires_grad_()
    leaves = [u, *op.parameters()]
    fast = torch.autograd.grad(op(u).square().sum(), leaves)
    expected = torch.autograd.grad(slow(op, u).square().sum(), leaves)
    torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-9)


def test_channels_decay_apart() -> None:
    log_decay = build().signals(inputs()).log_decay
    assert log_decay.shape == (2, H, L, D // H)
    assert (log_decay < 0).all()
    assert (log_decay[..., 0] - log_decay[..., 1]).abs().min() > 0


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, H, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        signals = op.signals(u)
        y = op.norm(matrix @ signals.v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(
            op(u), op.out_proj(y * signals.gate.sigmoid()), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize(
    "options", [{"n_heads": 4}, {"n_heads": -1}, {"chunk": 0}, {"expand_v": 0}, {"short_filter": 0}]
)
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        KimiDeltaAttention(D, 64, **options)
