from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.operators.hyena_li import HyenaLI
from mechbench.training.optimiser import make_optimizer
from operators.fidelity import assert_true_to_source
from operators.gated_conv import features, tap_by_tap

D = 6


def build(**options: Any) -> HyenaLI:
    torch.manual_seed(0)
    return HyenaLI(D, 64, **options).double()


def inputs(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, generator=generator, dtype=torch.float64)


def recurrent(op: HyenaLI, u: Tensor) -> Tensor:
    """One token after the other, with a state of d_state numbers a channel."""
    q, k, v = features(op, u)
    size = D // len(op.residue)
    R = op.residue.repeat_interleave(size, 0)  # (D, N)
    lam = torch.exp(-torch.exp(op.log_rate)).repeat_interleave(size, 0)
    state, rows = torch.zeros(len(u), *R.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        z = k[:, t] * v[:, t]
        state = lam * state + z[..., None]
        row = q[:, t] * ((R * state).sum(-1) + op.skip * z)
        rows.append(row @ op.out_proj.weight.T + op.out_proj.bias)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("options", [{}, {"d_state": 3, "n_groups": 2}, {"n_groups": 1}])
@pytest.mark.parametrize("length", [1, 2, 17, 64])
def test_equals_the_recurrence(options: dict[str, int], length: int) -> None:
    op, u = build(**options), inputs(length)
    with torch.no_grad():
        assert_true_to_source(op, op(u), recurrent(op, u))


def test_equals_the_sum_over_taps_of_the_paper() -> None:
    op, u = build(d_state=4, n_groups=3), inputs(20)
    R, p = op.residue.tolist(), op.log_rate.tolist()
    taps = [
        [
            sum(r * math.exp(-math.exp(x)) ** (t - 1) for r, x in zip(row, rates, strict=True))
            for t in range(1, 21)
        ]
        for row, rates in zip(R, p, strict=True)
    ]
    with torch.no_grad():
        assert_true_to_source(op, op(u), tap_by_tap(op, u, taps))


def test_gradients_are_those_of_the_recurrence() -> None:
    op, u = build(d_state=3, n_groups=2), inputs(13).requires_grad_()
    weight = inputs(13).detach()
    targets = [u, *op.parameters()]
    fast = torch.autograd.grad((op(u) * weight).sum(), targets)
    slow = torch.autograd.grad((recurrent(op, u) * weight).sum(), targets)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


@given(seqlen=st.integers(1, 400))
def test_taps_of_any_length_are_the_first_of_a_longer_filter(seqlen: int) -> None:
    torch.manual_seed(0)
    op = HyenaLI(2, 400, d_state=3).double()
    with torch.no_grad():
        t = torch.arange(seqlen)
        exact = (op.residue[..., None] * torch.exp(-op.log_rate.exp()[..., None] * t)).sum(1)
        torch.testing.assert_close(op.filters(seqlen), exact, rtol=1e-12, atol=1e-12)


def test_sizes_and_starts_are_those_released() -> None:
    torch.manual_seed(0)
    op = HyenaLI(512, 64)
    assert op.residue.shape == op.log_rate.shape == (512, 16)
    assert abs(op.residue.detach().std() / (0.1 / 4) - 1) < 0.05
    tokens = torch.exp(-op.log_rate.detach())  # until a term has decayed to 1 / e
    assert 27 < tokens.min() < 28
    assert 260 < tokens.max() < 272
    for group in make_optimizer(op, lr=4e-3, weight_decay=0.1).param_groups:
        if any(parameter is op.residue for parameter in group["params"]):
            assert group["weight_decay"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "d_state is 0: expected at least 1"),
        ({"n_groups": 4}, "n_groups is 4: expected a divisor of 6 channels"),
        ({"short_filter": 0}, "short_filter is 0: expected at least 1"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HyenaLI(D, 64, **options)
