from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.deltanet import DeltaNet
from operators.delta_slow import convolved, normalised, rms_normed
from operators.fidelity import assert_true_to_source

D, L, H = 6, 13, 2


def build(**options: Any) -> DeltaNet:
    torch.manual_seed(0)
    return DeltaNet(D, 64, n_heads=H, **options).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


def slow(op: DeltaNet, u: Tensor, expand_v: int, reach: int) -> Tensor:
    """Compute the layer token by token."""
    E, d = expand_v * D, D // H
    qkv, (b,) = convolved(op, u)
    q, k, v = qkv.split([D, D, E], -1)
    rows = []
    for i in range(len(u)):
        for head in range(H):
            keys = slice(head * d, (head + 1) * d)
            values = slice(head * E // H, (head + 1) * E // H)
            state = torch.zeros(d, E // H).double()
            for t in range(L):
                query, key = normalised(q[i, t, keys]), normalised(k[i, t, keys])
                beta = reach / (1 + torch.exp(-b[i, t, head]))
                erase = torch.eye(d).double() - beta * torch.outer(key, key)
                state = erase @ state + beta * torch.outer(key, v[i, t, values])
                rows.append(rms_normed(query @ state / math.sqrt(d), op.norm.weight))
    y = torch.stack(rows).view(len(u), H, L, E // H).transpose(1, 2).flatten(2)
    return y @ op.out_proj.weight.T


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize(("chunk", "expand_v"), [(1, 1), (4, 1), (7, 2), (64, 1)])
def test_equals_the_recurrence_written_naively(chunk: int, expand_v: int, reach: int) -> None:
    op, u = build(chunk=chunk, expand_v=expand_v, allow_neg_eigval=reach == 2), inputs()
    variant = "allow_neg_eigval=true" if reach == 2 else ""
    with torch.no_grad():
        assert_true_to_source(op, op(u), slow(op, u, expand_v, reach), variant)


def test_gradients_are_those_of_the_slow_loop() -> None:
    op, u = build(chunk=4, allow_neg_eigval=True), inputs().requires_grad_()
    leaves = [u, *op.parameters()]
    fast = torch.autograd.grad(op(u).square().sum(), leaves)
    expected = torch.autograd.grad(slow(op, u, 1, 2).square().sum(), leaves)
    torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-9)


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, H, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        y = op.norm(matrix @ op.signals(u).v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(op(u), op.out_proj(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"n_heads": 4}, {"n_heads": -1}, {"chunk": 0}, {"expand_v": 0}, {"short_filter": 0}]
)
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        DeltaNet(D, 64, **options)
