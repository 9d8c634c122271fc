from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.operators.rwkv import RWKV

D = 6


def build() -> RWKV:
    torch.manual_seed(0)
    return RWKV(D, 64).double()


def inputs(L: int) -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def by_hand(op: RWKV, u: Tensor) -> Tensor:
    """Carry the two sums from token to token, as the paper's recurrence."""
    w = op.speed.exp()
    before = num = den = torch.zeros(len(u), D, dtype=torch.float64)
    rows = []
    for t in range(u.shape[1]):
        x = u[:, t]
        r = (op.mix_r * x + (1 - op.mix_r) * before) @ op.receptance.weight.T
        k = (op.mix_k * x + (1 - op.mix_k) * before) @ op.key.weight.T
        v = (op.mix_v * x + (1 - op.mix_v) * before) @ op.value.weight.T
        now = torch.exp(k + op.bonus)
        wkv = (num + now * v) / (den + now)
        rows.append((wkv / (1 + torch.exp(-r))) @ op.out_proj.weight.T)
        num = torch.exp(-w) * num + torch.exp(k) * v
        den = torch.exp(-w) * den + torch.exp(k)
        before = x
    return torch.stack(rows, 1)


@pytest.mark.parametrize("L", [1, 2, 3, 17, 64])
def test_equals_the_recurrence_run_token_by_token(L: int) -> None:
    op, u = build(), inputs(L)
    torch.testing.assert_close(op(u), by_hand(op, u), rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_the_recurrence() -> None:
    op, weight = build(), inputs(33).flip(1)
    found = []
    for function in (op, lambda u: by_hand(op, u)):
        op.zero_grad()
        u = inputs(33).requires_grad_()
        (weight * function(u)).sum().backward()
        found.append([u.grad, *(p.grad.clone() for p in op.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_keys_of_any_size_stay_finite() -> None:
    op = build().float()
    with torch.no_grad():
        op.key.weight.mul_(500)
    y = op(inputs(64).float())
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in op.parameters())


def test_materialized_weights_are_causal_and_give_the_fast_path() -> None:
    op, u = build(), inputs(11)
    H = mechbench.materialize(op, u)
    assert H.shape == (2, D, 11, 11)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        before = torch.cat([torch.zeros_like(u[:, :1]), u[:, :-1]], 1)
        v = op.value(op.mix_v * u + (1 - op.mix_v) * before).transpose(1, 2)
        y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


def test_decays_start_from_slow_to_fast() -> None:
    w = build().speed.exp()
    assert w[0].item() == pytest.approx(2.718281828**-5)
    assert w[-1].item() == pytest.approx(2.718281828**3)
    assert (w.diff() > 0).all()
