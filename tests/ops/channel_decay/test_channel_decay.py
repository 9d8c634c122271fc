from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.ops import (
    channel_decay_attention,
    channel_decay_reference,
    channel_decay_scores,
    decay_attention,
)

K, P, H = 3, 2, 2


def draw(L: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return q, k, v, log_decay."""
    generator = torch.Generator().manual_seed(L)
    q, k, v, g = (
        torch.randn(2, H, L, n, generator=generator, dtype=torch.float64) for n in (K, K, P, K)
    )
    return [x.to(dtype) for x in (q, k, v, -g.square())]


@given(L=st.integers(1, 41), chunk=st.integers(1, 19))
def test_chunks_steps_and_matrix_agree(L: int, chunk: int) -> None:
    q, k, v, g = draw(L)
    expected = channel_decay_reference(q, k, v, g)
    y = channel_decay_attention(q, k, v, g, chunk)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    matrix = channel_decay_scores(q, k, g.cumsum(-2))
    assert matrix.shape == (2, H, L, L)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    torch.testing.assert_close(matrix @ v, expected, rtol=1e-12, atol=1e-12)


@given(L=st.integers(1, 21))
def test_strict_scores_read_the_state_before_a_step(L: int) -> None:
    q, k, v, g = draw(L)
    state, expected = torch.zeros(2, H, K, P).double(), []
    for t in range(L):
        expected.append((q[:, :, t, :, None] * state).sum(-2))
        state = g[:, :, t, :, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None]
    matrix = channel_decay_scores(q, k, g.cumsum(-2), strict=True)
    assert torch.equal(matrix.triu(), torch.zeros_like(matrix))
    torch.testing.assert_close(matrix @ v, torch.stack(expected, -2), rtol=1e-12, atol=1e-12)


def test_leading_axes_of_keys_broadcast() -> None:
    q, k, _, g = draw(6)
    both = channel_decay_scores(q, torch.stack([k, -2 * k]), g)
    torch.testing.assert_close(both[1], -2 * channel_decay_scores(q, k, g))


def test_equal_channels_are_one_decay_a_head() -> None:
    q, k, v, g = draw(29)
    g = g[..., :1].expand_as(g)
    torch.testing.assert_close(
        channel_decay_attention(q, k, v, g, 8), decay_attention(q, k, v, g[..., 0], 8)
    )


@pytest.mark.parametrize("chunk", [1, 4, 8, 64])
def test_gradients_are_those_of_the_steps(chunk: int) -> None:
    tensors = [x.requires_grad_() for x in draw(11)]
    fast = torch.autograd.grad(channel_decay_attention(*tensors, chunk).square().sum(), tensors)
    slow = torch.autograd.grad(channel_decay_reference(*tensors).square().sum(), tensors)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


def test_scale_is_of_the_queries_and_a_temperature_makes_log_decays_of_logits() -> None:
    q, k, v, x = draw(29)
    g = -torch.log(1 + torch.exp(-x)) / 0.5
    torch.testing.assert_close(
        channel_decay_attention(q, k, v, x, 8, scale=0.3, temperature=0.5),
        channel_decay_reference(0.3 * q, k, v, g),
    )


def test_strong_decay_of_some_channels_neither_overflows_nor_spoils_the_others() -> None:
    """A factor exp(-G) would be infinite here from the second token on."""
    L = 100
    q, k, v, _ = draw(L, torch.float32)
    g = torch.tensor([0.0, -0.01, -200.0]).expand(2, H, L, K).clone().requires_grad_()
    y = channel_decay_attention(q, k, v, g)
    y.sum().backward()
    assert g.grad is not None
    assert g.grad.isfinite().all()
    exact = channel_decay_reference(*(x.double() for x in (q, k, v, g.detach())))
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4)


def test_half_types_keep_their_dtype() -> None:
    tensors = draw(70, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = channel_decay_attention(*tensors)
    assert y.dtype == torch.bfloat16
    expected = channel_decay_reference(*(x.double() for x in tensors))
    torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=1e-2)
