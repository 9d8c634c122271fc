from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mechbench.ops import delta_rule, dplr, dplr_matrix, dplr_reference

K, P, H = 3, 2, 2


def draw(L: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return q, k, v, a, b, log_decay; transitions like those of RWKV-7."""
    generator = torch.Generator().manual_seed(L)

    def normal(n: int) -> Tensor:
        return torch.randn(2, H, L, n, generator=generator, dtype=torch.float64)

    q, k, v, g = normal(K), normal(K), normal(P), -0.6 * normal(K).sigmoid()
    a = -F.normalize(normal(K), dim=-1)
    b = -a * normal(K).sigmoid()
    return [x.to(dtype) for x in (q, k, v, a, b, g)]


@given(L=st.integers(1, 41), chunk=st.integers(1, 19))
def test_chunks_steps_and_matrix_agree(L: int, chunk: int) -> None:
    q, k, v, a, b, g = draw(L)
    expected = dplr_reference(q, k, v, a, b, g)
    torch.testing.assert_close(dplr(q, k, v, a, b, g, chunk), expected, rtol=1e-11, atol=1e-11)
    matrix = dplr_matrix(q, k, a, b, g)
    assert torch.equal(matrix.triu(1), torch.zeros_like(matrix))
    torch.testing.assert_close(matrix @ v, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_gradients_are_those_of_the_steps(chunk: int) -> None:
    tensors = [x.requires_grad_() for x in draw(11)]
    fast = torch.autograd.grad(dplr(*tensors, chunk).square().sum(), tensors)
    slow = torch.autograd.grad(dplr_reference(*tensors).square().sum(), tensors)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_the_delta_rule_is_a_special_case() -> None:
    q, k, v, a, b, g = draw(23)
    k, beta = -a, b[..., 0].sigmoid()
    y = dplr(q, beta[..., None] * k, v, -g.exp() * k, beta[..., None] * k, g, 8)
    torch.testing.assert_close(y, delta_rule(q, k, v, g, beta, 8))


def test_no_state_grows_over_a_long_input() -> None:
    q, k, v, a, b, g = draw(3000, torch.float32)
    y = dplr(q, k, v, a, b, 0.01 * g)
    exact = dplr_reference(*(x.double() for x in (q, k, v, a, b, 0.01 * g)))
    torch.testing.assert_close(y.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in the interpreter
def test_strong_decay_of_a_channel_neither_overflows_nor_spoils_the_others() -> None:
    q, k, v, a, b, _ = draw(100, torch.float32)
    a = a * torch.tensor([1.0, 1.0, 0.0])  # the third channel neither reads nor is kept
    g = torch.tensor([-0.01, -0.01, -200.0]).expand_as(k).clone().requires_grad_()
    y = dplr(q, k, v, a, b, g)
    y.sum().backward()
    assert g.grad is not None
    assert g.grad.isfinite().all()
    exact = dplr_reference(*(x.detach().double() for x in (q, k, v, a, b, g)))
    torch.testing.assert_close(y.double(), exact, rtol=1e-3, atol=1e-3)


def test_half_types_keep_their_dtype() -> None:
    tensors = draw(70, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = dplr(*tensors)
    assert y.dtype == torch.bfloat16
    expected = dplr_reference(*(x.double() for x in tensors))
    torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=2e-2)
