from __future__ import annotations

import pytest
import torch
from torch import nn

from mechbench.errors import ConfigError
from mechbench.operators.attention import Attention
from mechbench.operators.base import make_operator
from mechbench.operators.multihead import heads, softmax_weights

KINDS = ("attention", "eager-attention", "sliding-attention")
D, L = 8, 13


def build(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return make_operator(name, d_model=D, max_seqlen=L, n_heads=2, **options).double()


def test_weights_of_one_kind_are_those_of_another_and_give_the_same_function() -> None:
    u = torch.randn(2, L, D, generator=torch.Generator().manual_seed(1)).double()
    first = build("attention")
    for name in KINDS:
        other = build(name)
        nn.init.zeros_(other.qkv.weight)
        other.load_state_dict(first.state_dict())
        torch.testing.assert_close(other(u), first(u), rtol=1e-12, atol=1e-12)


def test_weights_stop_at_the_window() -> None:
    q, k = (torch.randn(1, 1, 6, 4, dtype=torch.float64) for _ in range(2))
    weights = softmax_weights(q, k, 2)[0, 0]
    for t in range(6):
        seen = [s for s in range(6) if weights[t, s] > 0]
        assert seen == [s for s in (t - 1, t) if s >= 0]
    torch.testing.assert_close(weights.sum(-1), torch.ones(6).double())
    assert torch.equal(softmax_weights(q, k, 6), softmax_weights(q, k))


@pytest.mark.parametrize(("d_model", "n_heads"), [(16, 1), (32, 1), (64, 2), (768, 24)])
def test_heads_default_to_32_features(d_model: int, n_heads: int) -> None:
    assert heads(d_model, 0) == n_heads
    assert heads(d_model, 4) == 4


@pytest.mark.parametrize("n_heads", [3, 8, -1])
def test_heads_that_do_not_fit_raise(n_heads: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Attention(D, L, n_heads=n_heads)
