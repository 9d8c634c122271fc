from __future__ import annotations

import pytest
import torch

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.h3 import H3

D = 3


def build(d_state: int = 4) -> H3:
    torch.manual_seed(0)
    return H3(D, 16, d_state=d_state).double()


@pytest.mark.parametrize("L", [1, 3, 11, 16])
def test_equals_the_two_state_spaces_run_token_by_token(L: int) -> None:
    op, d_state = build(4), 4
    u = torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        q, k, v = (u @ op.in_proj.weight.T + op.in_proj.bias).split(D, -1)
        # Shift state space: x <- shift(x), first entry the input; y = C x.
        shift = torch.zeros(2, D, d_state, dtype=torch.float64)
        A = -op.diagonal.log_decay[0].exp() + 1j * op.diagonal.turn[0]
        step = (A * op.diagonal.log_dt[0].exp()[:, None]).exp()
        C = op.diagonal.C[0, ..., 0] + 1j * op.diagonal.C[0, ..., 1]
        state = torch.zeros(2, *A.shape, dtype=A.dtype)
        rows = []
        for t in range(L):
            shift = torch.cat([k[:, t, :, None], shift[..., :-1]], -1)
            key = (op.shift.taps[0] * shift).sum(-1) + op.shift_skip * k[:, t]
            z = key * v[:, t]
            state = step * state + (step - 1) / A * z[..., None]
            y = q[:, t] * (2 * (C * state).sum(-1).real + op.skip * z)
            rows.append(y @ op.out_proj.weight.T + op.out_proj.bias)
        torch.testing.assert_close(op(u), torch.stack(rows, 1), rtol=1e-9, atol=1e-9)


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op = build()
    u = torch.randn(2, 11, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    H = mechbench.materialize(op, u)
    assert H.shape == (2, D, 11, 11)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        v = op.in_proj(u)[..., 2 * D :].transpose(1, 2)
        y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


def test_odd_state_raises() -> None:
    with pytest.raises(ConfigError, match="d_state is 3"):
        build(3)
