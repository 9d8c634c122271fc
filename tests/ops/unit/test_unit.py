from __future__ import annotations

import torch

from mechbench.ops import unit


def test_vectors_have_the_wanted_norm_and_keep_their_direction() -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    y = unit(x, 0.25)
    torch.testing.assert_close(
        y.norm(dim=-1), torch.full((2, 3, 5), 0.25).double(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(y / y.norm(dim=-1, keepdim=True), x / x.norm(dim=-1, keepdim=True))


def test_several_vectors_a_token_are_scaled_each() -> None:
    x = torch.randn(2, 5, 12).unflatten(-1, (2, 3, 2)).transpose(1, 2)
    torch.testing.assert_close(unit(x)[:, :, :, 1], unit(x[:, :, :, 1]))


def test_zero_stays_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(1, 1, 2, 3, requires_grad=True)
    y = unit(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_half_types_give_float32() -> None:
    x = torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(unit(x.bfloat16()), unit(x), rtol=2e-2, atol=1e-2)
    assert unit(x.bfloat16()).dtype == torch.float32
