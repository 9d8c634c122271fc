from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.ops import taylor_attention, taylor_attention_reference
from mechbench.ops.taylor_attention import taylor_features

B, H = 2, 2


def draw(L: int, d: int, P: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(L + d + P)
    return [torch.randn(B, H, L, n, generator=generator).double() for n in (d, d, P)]


@given(L=st.integers(1, 41), d=st.integers(1, 7), P=st.integers(1, 5), chunk=st.integers(1, 17))
def test_chunks_give_the_weighted_mean(L: int, d: int, P: int, chunk: int) -> None:
    q, k, v = draw(L, d, P)
    expected = taylor_attention_reference(q, k, v)
    torch.testing.assert_close(taylor_attention(q, k, v, chunk), expected, rtol=1e-10, atol=1e-10)


def test_weights_are_those_of_the_series() -> None:
    q, k, v = draw(3, 4, 2)
    z = [float(q[0, 0, 2] @ k[0, 0, s]) / 2 for s in range(3)]
    w = [1 + x + x**2 / 2 for x in z]
    expected = sum(a * x for a, x in zip(w, v[0, 0], strict=True)) / sum(w)
    torch.testing.assert_close(taylor_attention(q, k, v)[0, 0, 2], expected)


def test_gradients_are_those_of_the_weights() -> None:
    tensors = [x.requires_grad_() for x in draw(11, 3, 2)]
    dy = torch.randn(B, H, 11, 2, dtype=torch.float64)
    fast = torch.autograd.grad(taylor_attention(*tensors, 4), tensors, dy)
    slow = torch.autograd.grad(taylor_attention_reference(*tensors), tensors, dy)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_half_types_keep_their_dtype_and_sum_in_float32() -> None:
    ones = torch.ones(1, 1, 1001, 1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = taylor_attention(ones, ones, ones)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, ones)  # a sum in bfloat16 would stop at 256


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 16])
def test_features_give_the_exponential_to_second_order(d: int) -> None:
    x, y = torch.randn(2, 9, d, generator=torch.Generator().manual_seed(d)).double()
    z = (x * y).sum(-1) / d**0.5
    features = taylor_features(x)
    assert features.shape == (9, 1 + d + d * (d // 2 + 1))
    torch.testing.assert_close((features * taylor_features(y)).sum(-1), 1 + z + z**2 / 2)
