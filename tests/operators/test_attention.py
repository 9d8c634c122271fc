from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.attention import Attention
from operators.fidelity import assert_true_to_source
from operators.naive_attention import by_hand

D, L = 8, 9


def build(n_heads: int = 2, **given: float) -> Attention:
    torch.manual_seed(0)
    return Attention(D, 16, n_heads=n_heads, **given).double()  # type: ignore[arg-type]


def inputs() -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize(("n_heads", "base"), [(1, 10_000.0), (2, 10_000.0), (4, 50.0)])
def test_equals_a_softmax_over_the_past_written_naively(n_heads: int, base: float) -> None:
    op, u = build(n_heads, rotary_base=base), inputs()
    with torch.no_grad():
        assert_true_to_source(op, op(u), by_hand(op, u))


def test_materialized_rows_are_causal_sum_to_one_and_give_the_fast_path() -> None:
    op, u = build(2), inputs()
    H = mechbench.materialize(op, u)
    assert H.shape == (2, 2, L, L)
    torch.testing.assert_close(H.sum(-1), torch.ones(2, 2, L).double())
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        v = op.qkv(u)[..., 2 * D :].unflatten(-1, (2, D // 2)).transpose(1, 2)  # (B, H, L, d)
        y = op.out_proj((H @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("d_model", "n_heads"), [(16, 1), (32, 1), (64, 2), (768, 24)])
def test_heads_default_to_32_features(d_model: int, n_heads: int) -> None:
    assert Attention(d_model, 4).n_heads == n_heads


@pytest.mark.parametrize("n_heads", [3, 8, -1])
def test_heads_that_do_not_fit_raise(n_heads: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        build(n_heads)
