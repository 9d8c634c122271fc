from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.gss import GSS
from operators.fidelity import assert_true_to_source

D = 3


def build(**given: Any) -> GSS:
    torch.manual_seed(0)
    return GSS(D, 16, **{"d_state": 4, "variant": "small", **given}).double()


def inputs(L: int = 11) -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("L", [1, 3, 16])
@pytest.mark.parametrize(("d_ssm", "d_gate"), [(0, 0), (2, 7)])
def test_equals_the_state_space_run_token_by_token(L: int, d_ssm: int, d_gate: int) -> None:
    op, u = build(d_ssm=d_ssm, d_gate=d_gate), inputs(L)
    with torch.no_grad():
        x = gelu(u @ op.in_proj.weight.T + op.in_proj.bias)
        gate = gelu(u @ op.gate_proj.weight.T + op.gate_proj.bias)
        A = -op.ssm.log_decay[0].exp() + 1j * op.ssm.turn[0]
        step = (A * op.ssm.log_dt[0].exp()[:, None]).exp()
        C = op.ssm.C[0, ..., 0] + 1j * op.ssm.C[0, ..., 1]
        state = torch.zeros(2, *A.shape, dtype=A.dtype)
        rows = []
        for t in range(L):
            state = step * state + (step - 1) / A * x[:, t, :, None]
            s = 2 * (C * state).sum(-1).real + op.skip * x[:, t]
            mixed = gate[:, t] * (s @ op.ssm_proj.weight.T + op.ssm_proj.bias)
            rows.append(mixed @ op.out_proj.weight.T + op.out_proj.bias)
        assert_true_to_source(op, op(u), torch.stack(rows, 1))


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(d_ssm=2), inputs()
    H = mechbench.materialize(op, u)
    assert H.shape == (2, 2, 11, 11)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        x = gelu(op.in_proj(u)).transpose(1, 2)
        s = (H @ x[..., None])[..., 0].transpose(1, 2)
        y = op.out_proj(gelu(op.gate_proj(u)) * op.ssm_proj(s))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("option", ["d_ssm", "d_gate"])
def test_negative_widths_raise(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} is -1"):
        build(**{option: -1})


@pytest.mark.parametrize("L", [1, 5, 16])
def test_as_published_equals_the_layer_written_from_the_paper(L: int) -> None:
    op, u = build(variant="published"), inputs(L)
    torch.nn.init.normal_(op.norm.weight)
    with torch.no_grad():
        x = gelu(u @ op.in_proj.weight.T + op.in_proj.bias)
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = x * op.norm.weight + op.norm.bias
        A = -op.ssm.log_decay.exp() + 1j * op.ssm.log_turn.exp()
        C = torch.view_as_complex(op.ssm.C)
        state = torch.zeros(2, *C.shape, dtype=A.dtype)
        rows = []
        for t in range(L):
            state = A.exp() * state + (A.exp() - 1) / A * x[:, t, :, None]
            s = (C * state).sum(-1).real + op.skip * x[:, t]
            gate = gelu(u[:, t] @ op.gate_proj.weight.T + op.gate_proj.bias)
            mixed = gate * (s @ op.ssm_proj.weight.T + op.ssm_proj.bias)
            rows.append(mixed @ op.out_proj.weight.T + op.out_proj.bias)
        assert_true_to_source(op, op(u), torch.stack(rows, 1))


def test_sizes_are_the_published_ones_by_default_and_smaller_by_option() -> None:
    op = GSS(16, 8)
    assert (op.in_proj.out_features, op.gate_proj.out_features) == (4, 64)
    assert op.ssm.C.shape == (4, 512, 2)
    op = GSS(16, 8, variant="small")
    assert (op.in_proj.out_features, op.gate_proj.out_features) == (16, 16)
    assert op.ssm.C.shape == (1, 16, 32, 2)
