from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.linear_attention import LinearAttention
from mechbench.ops import rotary
from operators.fidelity import assert_true_to_source

D, L = 8, 19


def build(**options: Any) -> LinearAttention:
    torch.manual_seed(0)
    return LinearAttention(D, 64, n_heads=2, **options).double()


def inputs(length: int = L) -> Tensor:
    return torch.randn(2, length, D, generator=torch.Generator().manual_seed(5)).double()


def phi(x: Tensor) -> Tensor:
    return torch.tensor([v + 1 if v > 0 else math.exp(v) for v in x.tolist()], dtype=torch.float64)


@pytest.mark.parametrize("base", [0.0, 10_000.0, 30.0])
@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
def test_equals_a_weighted_mean_written_naively(base: float, chunk: int) -> None:
    op, u = build(rotary_base=base, chunk=chunk), inputs()
    d = D // 2
    with torch.no_grad():
        q, k, v = (u @ op.qkv.weight.T + op.qkv.bias).split(D, -1)
        mixed = torch.zeros_like(u)
        for b in range(len(u)):
            for head in range(2):
                part = slice(head * d, (head + 1) * d)
                fq, fk = (torch.stack([phi(x) for x in y[b, :, part]]) for y in (q, k))
                rq, rk = (rotary(x, base) if base else x for x in (fq, fk))
                for t in range(L):
                    total = sum(fq[t] @ fk[s] for s in range(t + 1)) + 1e-6
                    mixed[b, t, part] = sum(
                        (rq[t] @ rk[s]) / total * v[b, s, part] for s in range(t + 1)
                    )
        expected = mixed @ op.out_proj.weight.T + op.out_proj.bias
        assert_true_to_source(op, op(u), expected)


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    H = mechbench.materialize(op, u)
    assert H.shape == (2, 2, L, L)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        v = op.qkv(u)[..., 2 * D :].unflatten(-1, (2, D // 2)).transpose(1, 2)
        y = op.out_proj((H @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


def test_without_positions_rows_are_a_mean() -> None:
    H = mechbench.materialize(build(rotary_base=0.0, eps=0.0), inputs())
    torch.testing.assert_close(H.sum(-1), torch.ones(2, 2, L).double())
    assert (H >= 0).all()


def test_sums_are_float32_under_autocast() -> None:
    """Where bfloat16 would stop counting at 256."""
    op = LinearAttention(D, 4096, n_heads=2)
    u = torch.ones(1, 4096, D)
    exact = op(u)
    with torch.autocast("cpu", torch.bfloat16):
        y = op(u)
    assert (y.float() - exact).norm() < 2e-2 * exact.norm()


@pytest.mark.parametrize("options", [{"n_heads": 3}, {"n_heads": 8}, {"chunk": 0}])
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        LinearAttention(D, 64, **options)


@pytest.mark.parametrize("bias", [-25.0, -60.0, -200.0])
def test_vanishing_features_give_finite_outputs_and_gradients(bias: float) -> None:
    """Where elu + 1 is 0 in float32, and the published quotient 0 / 0."""
    u, found = inputs().float(), []
    for eps in (1e-6, 0.0):
        op = build(eps=eps).float()
        torch.nn.init.constant_(op.qkv.bias[: 2 * D], bias)
        y = op(u)
        y.square().sum().backward()
        found.append(y.isfinite().all() and op.qkv.weight.grad.isfinite().all())
    assert found == [True, False]


def test_features_keep_their_digits_where_they_are_small() -> None:
    x = torch.tensor([-30.0, -15.0, -1.0, 0.0, 2.0])
    expected = torch.tensor([math.exp(v) if v < 0 else v + 1 for v in x.tolist()])
    torch.testing.assert_close(build()._phi(x), expected, rtol=1e-6, atol=0.0)
