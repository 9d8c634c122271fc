from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.deltanet import DeltaNet
from mechbench.operators.deltaproduct import DeltaProduct
from mechbench.ops import delta_rule
from operators.delta_slow import convolved, normalised, rms_normed, sigmoid
from operators.fidelity import assert_true_to_source

D, L, H = 6, 13, 2


def build(**options: Any) -> DeltaProduct:
    torch.manual_seed(0)
    return DeltaProduct(D, 64, n_heads=H, **options).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


def slow(op: DeltaProduct, u: Tensor, n: int = 2, expand_v: int = 1, reach: int = 2) -> Tensor:
    """Compute the layer token by token and step by step."""
    d, P = D // H, expand_v * D // H
    qkv, (a, b) = convolved(op, u)
    q, k, v = qkv.split([D, n * D, n * expand_v * D], -1)
    rows = []
    for i in range(len(u)):
        for h in range(H):
            state = torch.zeros(d, P).double()
            for t in range(L):
                if a.shape[-1]:
                    softplus = (1 + (a[i, t, h] + op.decay.bias[h]).exp()).log()
                    state = (-op.decay.log_rate[h].exp() * softplus).exp() * state
                for j in range(n):
                    key = normalised(k[i, t, (h * n + j) * d : (h * n + j + 1) * d])
                    value = v[i, t, (h * n + j) * P : (h * n + j + 1) * P]
                    beta = reach * sigmoid(b[i, t, j * H + h])
                    state = (torch.eye(d).double() - beta * torch.outer(key, key)) @ state
                    state = state + beta * torch.outer(key, value)
                query = normalised(q[i, t, h * d : (h + 1) * d]) / math.sqrt(d)
                rows.append(rms_normed(query @ state, op.norm.weight))
    y = torch.stack(rows).view(len(u), H, L, P).transpose(1, 2).flatten(2)
    return y @ op.out_proj.weight.T


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize(
    ("chunk", "n", "expand_v"), [(1, 2, 1), (4, 3, 1), (7, 2, 2), (64, 2, 1), (5, 1, 1)]
)
def test_equals_the_recurrence_written_naively(
    chunk: int, n: int, expand_v: int, reach: int, gated: bool
) -> None:
    options = {"allow_neg_eigval": reach == 2, "gated": gated}
    op, u = build(chunk=chunk, n_householder=n, expand_v=expand_v, **options), inputs()
    with torch.no_grad():
        variant = "gated=true" if gated else ""
        assert_true_to_source(op, op(u), slow(op, u, n, expand_v, reach), variant)


@pytest.mark.parametrize("gated", [False, True])
def test_gradients_are_those_of_the_slow_loop(gated: bool) -> None:
    op, u = build(chunk=8, gated=gated), inputs().requires_grad_()
    leaves = [u, *op.parameters()]
    fast = torch.autograd.grad(op(u).square().sum(), leaves)
    expected = torch.autograd.grad(slow(op, u).square().sum(), leaves)
    torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-9)


def test_one_step_is_deltanet() -> None:
    op, u = build(n_householder=1, allow_neg_eigval=False), inputs()
    other = DeltaNet(D, 64, n_heads=H).double()
    other.load_state_dict(op.state_dict())
    torch.testing.assert_close(op(u), other(u))


def test_two_reflections_rotate_which_one_cannot() -> None:
    """Two of the steps that the layer takes turn a state by a quarter and keep its size."""
    turn = torch.tensor([[1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5)]]).double()
    keys = torch.cat([turn[:1], turn, turn])[None, None]  # written once, then turned twice
    values = torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.0]]).double()[None, None]
    beta = torch.tensor([1.0, 2.0, 2.0, 2.0, 2.0]).double()[None, None]

    for axis, expected in enumerate([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]):
        query = torch.eye(2).double()[axis].expand(1, 1, 5, 2)
        y = delta_rule(query, keys, values, 0 * beta, beta)
        found = torch.cat([y[:, :, :1], y[:, :, 2::2]], 2)
        torch.testing.assert_close(found.flatten(), torch.tensor(expected).double())


@pytest.mark.parametrize("n", [1, 3])
def test_materialized_matrices_are_causal_and_give_the_fast_path(n: int) -> None:
    op, u = build(chunk=5, n_householder=n, gated=True), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, H * n, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        steps = op.signals(u).v.transpose(2, 3)  # (B, H, n, L, P)
        y = (matrix.unflatten(1, (H, n)) @ steps).sum(2)
        y = op.norm(y).transpose(1, 2).flatten(2)
        torch.testing.assert_close(op(u), op.out_proj(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"n_heads": 4}, {"n_heads": -1}, {"chunk": 0}, {"n_householder": 0}]
)
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        DeltaProduct(D, 64, **options)
