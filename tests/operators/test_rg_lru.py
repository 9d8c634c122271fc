from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.rg_lru import RGLRU
from operators.fidelity import assert_true_to_source

D = 6


def build(d_model: int = D, **options: Any) -> RGLRU:
    torch.manual_seed(0)
    op = RGLRU(d_model, 64, **options).double()
    with torch.no_grad():  # as after training: biases that are not zero, taps that matter
        for parameter in op.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return op


def inputs(length: int = 17, d_model: int = D) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(2, length, d_model, generator=generator, dtype=torch.float64)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def recurrent(op: RGLRU, u: Tensor) -> Tensor:
    """Equations 1 to 4, one token after the other, in float64, with whole matrices."""
    E, H = len(op.lam), op.n_heads
    W_x, W_g = op.in_proj.weight.chunk(2)
    b_x, b_g = op.in_proj.bias.chunk(2)
    d = E // H
    W_r = torch.block_diag(*(op.gates[head, :, :d].T for head in range(H)))
    W_i = torch.block_diag(*(op.gates[head, :, d:].T for head in range(H)))
    b_r, b_i = (x.flatten() for x in op.gate_bias.view(H, 2, d).unbind(1))
    log_a = -torch.log1p(torch.exp(-op.lam))  # of a = sigmoid(lam), near 1
    projected = u @ W_x.T + b_x
    h, rows = torch.zeros(len(u), E, dtype=torch.float64), []
    for t in range(u.shape[1]):
        x = op.short_bias.expand(len(u), -1)
        for lag in range(min(op.short_weight.shape[1], t + 1)):
            x = x + op.short_weight[:, lag] * projected[:, t - lag]
        r = sigmoid(x @ W_r.T + b_r)
        i = sigmoid(x @ W_i.T + b_i)
        log_a_t = 8 * r * log_a
        kept = -torch.expm1(2 * log_a_t)  # 1 - a_t^2, which written so would lose two digits
        h = torch.exp(log_a_t) * h + torch.sqrt(kept) * (i * x)
        g = u[:, t] @ W_g.T + b_g
        g = g * 0.5 * (1 + torch.erf(g / math.sqrt(2)))
        rows.append((h * g) @ op.out_proj.weight.T + op.out_proj.bias)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("length", [1, 2, 17, 64])
@pytest.mark.parametrize(
    "options", [{}, {"n_heads": 3}, {"d_rnn": 9, "n_heads": 3, "short_filter": 1}]
)
def test_equals_equations_1_to_4(length: int, options: dict[str, int]) -> None:
    op, u = build(**options), inputs(length)
    with torch.no_grad():
        assert_true_to_source(op, op(u), recurrent(op, u))


def test_gradients_are_those_of_the_equations() -> None:
    op, u = build(d_rnn=4, n_heads=2), inputs().requires_grad_()
    weight = inputs().detach()
    names = [name for name, _ in op.named_parameters()]
    targets = [u, *op.parameters()]
    fast = torch.autograd.grad((op(u) * weight).sum(), targets)
    slow = torch.autograd.grad((recurrent(op, u) * weight).sum(), targets)
    for name, one, other in zip(["u", *names], fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=name)


def test_decays_start_where_the_paper_has_them() -> None:
    torch.manual_seed(0)
    op = RGLRU(512, 8, n_heads=1)
    start = torch.sigmoid(op.lam.detach()) ** 8
    assert 0.9 < start.min() < 0.903
    assert 0.996 < start.max() < 0.999
    assert abs(float(start.mean()) - 0.9495) < 0.005


@pytest.mark.parametrize(
    ("d_model", "n_heads", "d_rnn"), [(64, 0, 88), (128, 0, 176), (8, 0, 16), (48, 3, 72)]
)
def test_default_width_has_the_parameters_of_attention(
    d_model: int, n_heads: int, d_rnn: int
) -> None:
    assert len(RGLRU(d_model, 8, n_heads=n_heads).lam) == d_rnn


def test_gradients_stay_finite_where_the_recurrence_gate_is_shut() -> None:
    op = RGLRU(8, 64, n_heads=1)
    with torch.no_grad():
        op.gate_bias[: len(op.lam)] = -200.0  # r is 0 in float32: all is kept, nothing added
        op.gate_bias[0] = -50.0
    u = inputs(32, 8).float().requires_grad_()
    op(u).square().sum().backward()
    for x in (u, *op.parameters()):
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(n_heads=2), inputs()
    H = mechbench.materialize(op, u)
    assert H.shape == (2, len(op.lam), 17, 17)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        v = op._signals(u)[2].transpose(1, 2)
        y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 5}, "d_model 6 over 5 heads"),
        ({"n_heads": 3, "d_rnn": 8}, "d_rnn is 8: expected a multiple of 3 heads"),
        ({"d_rnn": -1}, "d_rnn is -1: expected 0 or more"),
        ({"short_filter": 0}, "short_filter is 0: expected at least 1"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RGLRU(D, 64, **options)
