from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.s4d import S4D
from mechbench.training.optimiser import make_optimizer
from operators.fidelity import assert_true_to_source


def build(d_model: int = 3, d_state: int = 8) -> S4D:
    return S4D(d_model, 64, d_state=d_state).double()


def recurrent(op: S4D, u: Tensor) -> Tensor:
    """One token after the other, with a state of d_state / 2 complex numbers a channel."""
    A = -op.ssm.log_decay[0].exp() + 1j * op.ssm.turn[0]  # (D, modes)
    step = (A * op.ssm.log_dt[0].exp()[:, None]).exp()
    drive = (step - 1) / A
    C = op.ssm.C[0, ..., 0] + 1j * op.ssm.C[0, ..., 1]
    x, rows = torch.zeros(len(u), *A.shape, dtype=A.dtype), []
    for t in range(u.shape[1]):
        x = step * x + drive * u[:, t, :, None]
        s = 2 * (C * x).sum(-1).real + op.skip * u[:, t]  # (B, D)
        s = s * 0.5 * (1 + torch.erf(s / math.sqrt(2)))
        a, g = (s @ op.out_proj.weight.T + op.out_proj.bias).chunk(2, -1)
        rows.append(a / (1 + torch.exp(-g)))
    return torch.stack(rows, 1)


@given(
    L=st.integers(1, 64),
    d_model=st.integers(1, 4),
    d_state=st.sampled_from([2, 6, 16]),
    seed=st.integers(0, 2**31),
)
def test_convolution_and_recurrence_agree(L: int, d_model: int, d_state: int, seed: int) -> None:
    torch.manual_seed(seed)
    op, u = build(d_model, d_state), torch.randn(2, L, d_model, dtype=torch.float64)
    with torch.no_grad():
        assert_true_to_source(op, op(u), recurrent(op, u))


def test_materialized_matrix_gives_the_fast_path() -> None:
    torch.manual_seed(0)
    op, u = build(), torch.randn(2, 11, 3, dtype=torch.float64)
    H = mechbench.materialize(op, u)
    assert H.shape == (2, 3, 11, 11)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        s = (H @ u.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        y = torch.nn.functional.glu(op.out_proj(torch.nn.functional.gelu(s)), -1)
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


def test_poles_have_their_own_learning_rate() -> None:
    op = build()
    groups = make_optimizer(op, lr=4e-3, weight_decay=0.1).param_groups
    found = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    for parameter in (op.ssm.log_dt, op.ssm.log_decay, op.ssm.turn):
        assert found[id(parameter)] == (1e-3, 0.0)
    assert found[id(op.ssm.C)] == (4e-3, 0.0)
    assert found[id(op.out_proj.weight)] == (4e-3, 0.1)


def test_odd_state_raises() -> None:
    with pytest.raises(ConfigError, match="d_state is 7"):
        S4D(3, 64, d_state=7)
