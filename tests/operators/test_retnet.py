from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.retnet import RetNet
from mechbench.ops import rotary
from operators.fidelity import assert_true_to_source

D, L, H = 8, 19, 2


def build(**options: Any) -> RetNet:
    torch.manual_seed(0)
    return RetNet(D, 64, n_heads=H, **{"decays": "consecutive", **options}).double()


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


@pytest.mark.parametrize(("chunk", "expand_v"), [(1, 2), (4, 1), (7, 2), (64, 3)])
def test_equals_the_recurrence_written_naively(chunk: int, expand_v: int) -> None:
    op, u = build(chunk=chunk, expand_v=expand_v), inputs()
    E = expand_v * D
    with torch.no_grad():
        q, k, v, gate = (u @ op.in_proj.weight.T).split([D, D, E, E], -1)
        mixed = torch.zeros(2, L, E).double()
        for b in range(2):
            for head in range(H):
                keys = slice(head * D // H, (head + 1) * D // H)
                values = slice(head * E // H, (head + 1) * E // H)
                rq, rk = rotary(q[b, :, keys]), rotary(k[b, :, keys])
                state = torch.zeros(D // H, E // H).double()
                for t in range(L):
                    state = (1 - 2.0 ** (-5 - head)) * state + torch.outer(rk[t], v[b, t, values])
                    y = rq[t] @ state / math.sqrt(D // H)
                    y = (y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt()
                    mixed[b, t, values] = y * op.norm.weight[values] + op.norm.bias[values]
        expected = (gate * gate.sigmoid() * mixed) @ op.out_proj.weight.T
        assert_true_to_source(op, op(u), expected)


def test_materialized_matrix_is_causal_and_decays_at_the_rate_of_its_head() -> None:
    op, u = build(), inputs()
    matrix = mechbench.materialize(op, u)
    assert matrix.shape == (2, H, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    q, k, _, _ = op._heads(u)
    for head in range(H):
        for age in range(L):
            expected = (q[0, head, -1] @ k[0, head, L - 1 - age]) * (1 - 2.0 ** (-5 - head)) ** age
            torch.testing.assert_close(
                matrix[0, head, -1, L - 1 - age], expected.detach(), rtol=1e-5, atol=1e-8
            )


def test_rates_are_fixed_and_not_in_the_checkpoint() -> None:
    op = build()
    torch.testing.assert_close(
        op.log_gamma.exp().flatten().float(), torch.tensor([31 / 32, 63 / 64])
    )
    assert not any("gamma" in name for name in op.state_dict())
    assert not any("gamma" in name for name, _ in op.named_parameters())


@pytest.mark.parametrize("options", [{"n_heads": 3}, {"n_heads": 8}, {"chunk": 0}, {"expand_v": 0}])
def test_options_out_of_range_raise(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        RetNet(D, 64, **options)


def exponents(n_heads: int, **options: Any) -> list[float]:
    op = RetNet(16, 64, n_heads=n_heads, **options)
    return (-torch.log2(-torch.expm1(op.log_gamma.double()))).flatten().tolist()


@pytest.mark.parametrize(
    ("n_heads", "expected"), [(1, [12]), (2, [5, 12]), (4, [5, 7 + 1 / 3, 9 + 2 / 3, 12])]
)
def test_decays_span_the_published_range_whatever_the_number_of_heads(
    n_heads: int, expected: list[float]
) -> None:
    assert exponents(n_heads) == pytest.approx(expected, abs=1e-3)


def test_at_eight_heads_the_spread_decays_are_the_published_ones() -> None:
    assert exponents(8) == pytest.approx(list(range(5, 13)), abs=1e-3)
    assert exponents(8) == pytest.approx(exponents(8, decays="consecutive"), abs=1e-3)


def test_norm_of_the_papers_code_divides_each_head_by_its_root_mean_square() -> None:
    op, u = build(norm="rms"), inputs()
    assert not any("norm" in name for name in op.state_dict())
    with torch.no_grad():
        v, gate = (u @ op.in_proj.weight.T).split([D, D, 2 * D, 2 * D], -1)[2:]
        heads = v.unflatten(-1, (H, -1)).transpose(1, 2)  # (B, H, L, 2 D / H)
        y = (mechbench.materialize(op, u) @ heads).transpose(1, 2)
        y = (y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt()).flatten(2)
        expected = (gate * gate.sigmoid() * y) @ op.out_proj.weight.T
        torch.testing.assert_close(op(u), expected, rtol=1e-9, atol=1e-9)
