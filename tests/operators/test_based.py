from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.based import Based
from mechbench.training.model import Backbone
from operators.fidelity import assert_true_to_source

D, L, H, F = 8, 19, 2, 5


def build(**options: Any) -> Based:
    torch.manual_seed(0)
    return Based(D, 64, n_heads=H, **({"d_feature": F} | options)).double()


def inputs() -> Tensor:
    return 2 * torch.randn(2, L, D, generator=torch.Generator().manual_seed(5)).double()


def naive(op: Based, u: Tensor, d_feature: int) -> Tensor:
    """The paper's feature map with its d^2 products, one head and token at a time."""

    def phi(x: Tensor) -> Tensor:
        products = torch.stack([a * b for a in x for b in x]) / 2**0.5
        one = torch.ones(1, dtype=torch.float64)
        return torch.cat([one, x / d_feature**0.25, products / d_feature**0.5])

    q, k, v = (u @ layer.weight.T for layer in (op.query, op.key, op.value))
    mixed = torch.zeros_like(u)
    for b in range(len(u)):
        for h in range(H):
            narrow, part = slice(h * d_feature, (h + 1) * d_feature), slice(4 * h, 4 * h + 4)
            state = total = torch.zeros(1).double()
            for t in range(L):
                state = state + torch.outer(phi(k[b, t, narrow]), v[b, t, part])
                total = total + phi(k[b, t, narrow])
                query = phi(q[b, t, narrow])
                mixed[b, t, part] = query @ state / (query @ total)
    return mixed @ op.out_proj.weight.T


@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
@pytest.mark.parametrize("d_feature", [1, 2, 5, 16])
def test_equals_the_recurrence_written_naively(chunk: int, d_feature: int) -> None:
    op, u = build(chunk=chunk, d_feature=d_feature), inputs()
    with torch.no_grad():
        assert_true_to_source(op, op(u), naive(op, u, d_feature))


def test_materialized_matrix_is_causal_and_gives_the_fast_path() -> None:
    op, u = build(chunk=5), inputs()
    weights = mechbench.materialize(op, u)
    assert weights.shape == (2, H, L, L)
    assert torch.equal(weights.triu(1), torch.zeros_like(weights))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, H, L).double())
    with torch.no_grad():
        v = op.value(u).unflatten(-1, (H, D // H)).transpose(1, 2)
        y = op.out_proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(op(u), y, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_the_matrix() -> None:
    op, u = build(chunk=4), inputs().requires_grad_()
    found = torch.autograd.grad(op(u).square().sum(), [u, *op.parameters()])
    v = op.value(u).unflatten(-1, (H, D // H)).transpose(1, 2)
    y = op.out_proj((op.mixing_matrix(u) @ v).transpose(1, 2).flatten(2))
    expected = torch.autograd.grad(y.square().sum(), [u, *op.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_defaults_are_narrow_queries_and_keys() -> None:
    op = Based(64, 8)
    assert op.n_heads == 2
    assert (op.query.out_features, op.key.out_features, op.value.out_features) == (32, 32, 64)


def test_stands_beside_sliding_attention_in_a_hybrid() -> None:
    options = {"pattern": "sliding-attention,based", "sliding-attention.window": 4}
    model = Backbone("hybrid", options, vocab_size=8, d_model=8, n_layers=2, max_seqlen=8)
    assert model.blocks[0].operator.window == 4
    assert isinstance(model.blocks[1].operator, Based)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_heads": 3}, "d_model 8 over 3 heads"),
        ({"d_feature": 0}, "d_feature is 0: expected at least 1"),
        ({"d_feature": 129}, "d_feature is 129: expected at most 128"),
        ({"chunk": 0}, "chunk is 0: expected at least 1"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Based(D, 8, **options)
