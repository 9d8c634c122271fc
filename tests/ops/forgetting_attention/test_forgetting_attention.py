from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.ops import forgetting_attention, forgetting_heads, forgetting_weights, log_gates

H, K, P = 2, 3, 5


def arguments(L: int, strength: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(L)
    q, k = (torch.randn(2, H, L, K, generator=generator).double() for _ in range(2))
    v = torch.randn(2, H, L, P, generator=generator).double()
    return [q, k, v, -strength * torch.rand(2, H, L, generator=generator).double()]


def naive(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Every weight from the products of its gates, one query and key at a time."""
    rows = []
    for t in range(q.shape[2]):
        logits = [
            (q[:, :, t] * k[:, :, s]).sum(-1) / K**0.5 + g[:, :, s + 1 : t + 1].sum(-1)
            for s in range(t + 1)
        ]
        weights = torch.stack([x.exp() for x in logits], -1)
        weights = weights / weights.sum(-1, keepdim=True)
        rows.append((weights[..., None] * v[:, :, : t + 1]).sum(2))
    return torch.stack(rows, 2)


@given(L=st.integers(1, 23), chunk=st.integers(1, 25), strength=st.sampled_from([0.0, 0.1, 3.0]))
def test_chunks_and_matrix_equal_the_products_of_gates(L: int, chunk: int, strength: float) -> None:
    q, k, v, g = arguments(L, strength)
    expected = naive(q, k, v, g)
    found = forgetting_attention(q, k, v, g, chunk)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = forgetting_weights(q, k, g)
    assert torch.equal(weights.triu(1), torch.zeros_like(weights))
    torch.testing.assert_close(weights @ v, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 11, 64])
def test_gradients_are_those_of_the_products(chunk: int) -> None:
    fast, slow = ([x.requires_grad_() for x in arguments(11)] for _ in range(2))
    weight = arguments(11)[2].cos()
    (forgetting_attention(*fast, chunk) * weight).sum().backward()
    (naive(*slow) * weight).sum().backward()
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-11, atol=1e-11)


def test_long_sums_in_float32_keep_near_keys_exact() -> None:
    """Over 4,000 tokens the gates add up to -20,000, which float32 holds to 0.002."""
    exact = arguments(4000, strength=10.0)
    q, k, v, g = (x[:1, :1, -300:] for x in exact)
    last = forgetting_attention(q, k, v, g)[:, :, -1]  # nothing reaches further back
    found = forgetting_attention(*(x[:1, :1].float() for x in exact))[:, :, -1]
    torch.testing.assert_close(found.double(), last, rtol=1e-5, atol=1e-6)


def test_closed_gates_leave_the_token_itself_and_no_nan() -> None:
    q, k, v, g = (x.float().requires_grad_() for x in arguments(9))
    y = forgetting_attention(q, k, v, g - 200, chunk=4)
    y.square().sum().backward()
    torch.testing.assert_close(y, v)
    assert all(x.grad.isfinite().all() for x in (q, k, v, g))


def test_half_types_keep_their_dtype_and_sum_in_float32() -> None:
    q, k, v, g = (x.bfloat16() for x in arguments(40))
    exact = forgetting_attention(*(x.float() for x in (q, k, v, g)))
    with torch.autocast("cpu", torch.bfloat16):
        y = forgetting_attention(q, k, v, g)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, exact.bfloat16())


def test_heads_of_a_projection_with_the_sigmoid_of_logits() -> None:
    qkv, gate = torch.randn(2, 9, 3, H, K).double(), torch.randn(2, 9, H).double()
    q, k, v = (qkv[:, :, n].transpose(1, 2) for n in range(3))
    g = gate.sigmoid().log().transpose(1, 2)
    torch.testing.assert_close(log_gates(gate), g)
    assert log_gates(gate.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(forgetting_heads(qkv, gate, 4), naive(q, k, v, g))
