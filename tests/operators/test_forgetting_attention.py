from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.forgetting_attention import ForgettingAttention
from mechbench.ops import rotary
from operators.fidelity import assert_true_to_source

D, L, H = 8, 19, 2


def build(**options: Any) -> ForgettingAttention:
    torch.manual_seed(0)
    return ForgettingAttention(D, 64, n_heads=H, **options).double()


def inputs(length: int = L) -> Tensor:
    return 2 * torch.randn(2, length, D, generator=torch.Generator().manual_seed(5)).double()


def naive(op: ForgettingAttention, u: Tensor) -> Tensor:
    """The paper's weighted means, gate by gate, for one sequence, head, query and key at a time."""
    d = D // H
    q, k, v = (u @ op.qkv.weight.T).split(D, -1)
    mixed = torch.zeros_like(u)
    for b in range(len(u)):
        for h in range(H):
            part = slice(h * d, (h + 1) * d)
            qh, kh = q[b, :, part], k[b, :, part]
            if op.rotary_base:
                qh, kh = rotary(qh, op.rotary_base), rotary(kh, op.rotary_base)
            gates = [
                1 / (1 + math.exp(-float(op.forget.weight[h] @ x + op.forget.bias[h])))
                for x in u[b]
            ]
            for t in range(len(u[b])):
                weights = [
                    math.prod(gates[s + 1 : t + 1]) * math.exp(float(qh[t] @ kh[s]) / d**0.5)
                    for s in range(t + 1)
                ]
                mixed[b, t, part] = sum(
                    w / sum(weights) * v[b, s, part] for s, w in enumerate(weights)
                )
    return mixed @ op.out_proj.weight.T


@pytest.mark.parametrize("base", [0.0, 30.0])
@pytest.mark.parametrize("chunk", [1, 4, 7, 128])
def test_equals_weighted_means_with_gates_written_naively(base: float, chunk: int) -> None:
    op, u = build(rotary_base=base, chunk=chunk), inputs()
    with torch.no_grad():
        op.forget.bias.copy_(torch.tensor([-1.0, 2.0]))
        assert_true_to_source(op, op(u), naive(op, u))


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    weights = mechbench.materialize(op, u)
    assert weights.shape == (2, H, L, L)
    assert torch.equal(weights.triu(1), torch.zeros_like(weights))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, H, L).double())
    with torch.no_grad():
        v = op.qkv(u)[..., 2 * D :].unflatten(-1, (H, D // H)).transpose(1, 2)
        y = op.out_proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(op(u), y, rtol=1e-12, atol=1e-12)


def test_open_gates_are_attention_without_positions_and_closed_ones_forget() -> None:
    op, u = build(), inputs()
    with torch.no_grad():
        op.forget.weight.zero_()
        op.forget.bias.fill_(50.0)
        q, k, v = op.qkv(u).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(op(u), op.out_proj(plain.transpose(1, 2).flatten(2)))
        op.forget.bias.fill_(-50.0)
        torch.testing.assert_close(op(u), op.out_proj(v.transpose(1, 2).flatten(2)))


def test_gates_start_between_open_and_closed_and_have_the_only_bias() -> None:
    op = build()
    assert torch.equal(op.forget.bias, torch.zeros(H).double())
    assert [name for name, _ in op.named_parameters() if "bias" in name] == ["forget.bias"]
    assert ForgettingAttention(64, 8).n_heads == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_heads": 3}, "d_model 8 over 3 heads"),
        ({"n_heads": 8, "rotary_base": 10.0}, "d_model 8 over 8 heads"),
        ({"chunk": 0}, "chunk is 0: expected at least 1"),
        ({"rotary_base": -1.0}, "rotary_base is -1.0: expected 0 or more"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ForgettingAttention(D, 8, **options)
