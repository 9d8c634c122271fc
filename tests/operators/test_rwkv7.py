from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.rwkv7 import RWKV7, LowRank
from mechbench.training.optimiser import make_optimizer
from operators.fidelity import assert_true_to_source

D, L = 6, 13


def build(**options: Any) -> RWKV7:
    """Return a layer with random values in place of the constants that it starts with."""
    torch.manual_seed(0)
    op = RWKV7(D, 64, **options).double()
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return op


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def slow(op: RWKV7, u: Tensor, n_heads: int) -> Tensor:
    """Compute the layer token by token, with states (d_value, d_key) as the paper has them."""
    d, rows = D // n_heads, []

    def matrix(low_rank: LowRank) -> tuple[Tensor, Tensor]:
        return low_rank.first.weight.T, low_rank.second.weight.T

    for i in range(len(u)):
        states = [torch.zeros(d, d).double() for _ in range(n_heads)]
        earlier = torch.zeros(D).double()
        for t in range(L):
            now = u[i, t]
            x = {name: now + (earlier - now) * op.mix[name] for name in "rwkvag"}
            earlier = now
            r, z, v = (
                x[name] @ linear.weight.T
                for name, linear in (("r", op.receptance), ("k", op.key), ("v", op.value))
            )
            first, second = matrix(op.decay)
            d_t = torch.tanh(x["w"] @ first) @ second + op.decay.second.bias
            w = (-math.exp(-0.5) * sigmoid(d_t)).exp()
            first, second = matrix(op.rate)
            a = sigmoid(x["a"] @ first @ second + op.rate.second.bias)
            first, second = matrix(op.gate)
            g = sigmoid(x["g"] @ first) @ second
            k = z * (1 + (a - 1) * op.blend)
            row = []
            for h in range(n_heads):
                s = slice(h * d, (h + 1) * d)
                kappa = (z * op.remove)[s]
                kappa = kappa / kappa.square().sum().sqrt()
                change = torch.diag(w[s]) - torch.outer(kappa, a[s] * kappa)
                states[h] = states[h] @ change + torch.outer(v[s], k[s])
                y = states[h] @ r[s]
                y = (y - y.mean()) / (y.var(unbiased=False) + 1e-5 * d).sqrt()
                y = y * op.norm.weight[s] + op.norm.bias[s]
                row.append(y + (r[s] * op.bonus[h] * k[s]).sum() * v[s])
            rows.append((g * torch.cat(row)) @ op.out_proj.weight.T)
    return torch.stack(rows).view_as(u)


@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
@pytest.mark.parametrize("n_heads", [1, 2])
def test_equals_the_recurrence_written_naively(n_heads: int, chunk: int) -> None:
    op, u = build(n_heads=n_heads, chunk=chunk), inputs()
    with torch.no_grad():
        assert_true_to_source(op, op(u), slow(op, u, n_heads))


def test_gradients_are_those_of_the_slow_loop() -> None:
    op, u = build(n_heads=2, chunk=8), inputs().requires_grad_()
    leaves = [u, *op.parameters()]
    fast = torch.autograd.grad(op(u).square().sum(), leaves)
    expected = torch.autograd.grad(slow(op, u, 2).square().sum(), leaves)
    torch.testing.assert_close(fast, expected, rtol=1e-8, atol=1e-8)


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(n_heads=2, chunk=5), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, 2, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    with torch.no_grad():
        r, k, v, *_, gate = op._signals(u)
        y = (matrix @ v).transpose(1, 2).flatten(2)
        y = op.norm(y.flatten(0, 1)).view_as(y)
        now = (r * k * op.bonus[:, None]).sum(-1, keepdim=True) * v
        y = (y + now.transpose(1, 2).flatten(2)) * gate
        torch.testing.assert_close(op(u), op.out_proj(y), rtol=1e-9, atol=1e-9)


def test_starts_as_the_released_layers_do() -> None:
    """The initial values of the released training code at these places, by hand."""
    first, last = RWKV7(128, 8), RWKV7(128, 8, depth=4, layer=3)
    assert (first.n_heads, first.decay.first.out_features, first.gate.first.out_features) == (
        2, 32, 64,
    )  # fmt: skip
    torch.testing.assert_close(first.mix["r"][32].item(), 1 - 0.25**0.2)
    torch.testing.assert_close(last.mix["w"][32].item(), 1 - 0.25 ** (0.9 * 0.25))
    # the first channel of a head, 64 of 128; channel 64 / 127 of the way
    way, low = 64 / 127, -1.0
    speed = first.decay.second.bias[64].item(), last.decay.second.bias[64].item()
    torch.testing.assert_close(speed[0], -6 + 6 * way + 0.5 + 2.5 * low, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(speed[1], -6 + 6 * way**2 + 0.5 + 2.5 * low, rtol=1e-5, atol=1e-5)
    rate = -0.19 + 0.3 * low + 0.4 * (way - 0.5)
    torch.testing.assert_close(first.rate.second.bias[64].item(), rate, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.remove[64].item(), 0.71 - 0.1 * (way - 0.5))
    assert first.norm.weight[0] == 1
    assert first.norm.eps == pytest.approx(64e-5)
    torch.testing.assert_close(RWKV7(8, 8, depth=4).norm.weight[0].item(), 0.25**0.7)


def test_weight_decay_acts_on_the_four_matrices_only() -> None:
    op = RWKV7(8, 8)
    groups = make_optimizer(op, lr=1e-3, weight_decay=0.1).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(m.weight) for m in (op.receptance, op.key, op.value, op.out_proj)}


def test_a_single_channel_works() -> None:
    assert RWKV7(1, 8)(torch.randn(2, 3, 1)).isfinite().all()


@pytest.mark.parametrize(
    "options",
    [{"n_heads": 4}, {"n_heads": -1}, {"chunk": 0}, {"depth": -1}, {"depth": 2, "layer": 2}],
)
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        RWKV7(D, 64, **options)
