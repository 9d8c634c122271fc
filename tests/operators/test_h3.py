from __future__ import annotations

import pytest
import torch

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.h3 import H3
from operators.fidelity import assert_true_to_source

D = 3


def build(d_state: int = 4, variant: str = "released") -> H3:
    torch.manual_seed(0)
    op = H3(D, 16, d_state=d_state, variant=variant).double()
    if variant == "released":
        for states in (op.shift, op.diagonal):
            torch.nn.init.normal_(states.B)
    return op


@pytest.mark.parametrize("variant", ["released", "plain"])
@pytest.mark.parametrize("L", [1, 3, 11, 16])
def test_equals_the_two_state_spaces_run_token_by_token(L: int, variant: str) -> None:
    op, d_state = build(4, variant), 4
    u = torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        q, k, v = (u @ op.in_proj.weight.T + op.in_proj.bias).split(D, -1)
        # Shift state space: x <- shift(x), first entry the input; y = C x.
        shift = torch.zeros(2, D, d_state, dtype=torch.float64)
        A = -op.diagonal.log_decay[0].exp() + 1j * op.diagonal.turn[0]
        dt = op.diagonal.log_dt[0].exp()[:, None]
        if variant == "released":  # bilinear, B trained; the shift's B enters its state at once
            step = (1 + dt * A / 2) / (1 - dt * A / 2)
            B = dt / (1 - dt * A / 2) * torch.view_as_complex(op.diagonal.B)[0]
            taps = [
                (op.shift.B[:, : d_state - t] * op.shift.C[:, t:]).sum(-1) for t in range(d_state)
            ]
            taps = torch.stack(taps, -1)
        else:
            step = (A * dt).exp()
            B, taps = (step - 1) / A, op.shift.taps[0]
        C = op.diagonal.C[0, ..., 0] + 1j * op.diagonal.C[0, ..., 1]
        state = torch.zeros(2, *A.shape, dtype=A.dtype)
        rows = []
        for t in range(L):
            shift = torch.cat([k[:, t, :, None], shift[..., :-1]], -1)
            key = (taps * shift).sum(-1) + op.shift_skip * k[:, t]
            z = key * v[:, t]
            state = step * state + B * z[..., None]
            y = q[:, t] * (2 * (C * state).sum(-1).real + op.skip * z)
            rows.append(y @ op.out_proj.weight.T + op.out_proj.bias)
        assert_true_to_source(op, op(u), torch.stack(rows, 1))


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


@pytest.mark.parametrize(("variant", "depends"), [("released", False), ("plain", True)])
def test_says_whether_its_weights_depend_on_the_longest_length(variant: str, depends: bool) -> None:
    shapes = [
        {k: x.shape for k, x in H3(D, n, variant=variant).state_dict().items()} for n in (8, 90)
    ]
    assert H3.depends_on_max_seqlen({"variant": variant}) is depends is (shapes[0] != shapes[1])
