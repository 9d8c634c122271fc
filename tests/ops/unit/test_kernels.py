from __future__ import annotations

import pytest
import torch

from mechbench.ops import unit
from ops.conftest import relative_error


@pytest.mark.parametrize(("L", "H", "d"), [(1, 1, 1), (5, 3, 4), (70, 2, 20), (33, 1, 64)])
def test_values_and_gradients_are_those_of_the_formula(
    kernel_device: str, L: int, H: int, d: int
) -> None:
    wide = torch.randn(2, L, 2 * H * d, dtype=torch.float64)
    x = wide[..., H * d :].unflatten(-1, (H, d)).transpose(1, 2)
    dy = torch.randn(2, H, L, d, dtype=torch.float64)
    results = []
    for given, grad in ((x, dy), (x.to(kernel_device).float(), dy.to(kernel_device).float())):
        leaf = given.detach().requires_grad_()
        y = unit(leaf, d**-0.5)
        results.append([y, *torch.autograd.grad(y, leaf, grad)])
    # With one channel only eps gives the norm a slope: the gradient is a difference of large terms.
    for exact, got, bound in zip(*results, (1e-6, 1e-6 if d > 1 else 1), strict=True):
        assert exact.shape == got.shape
        assert relative_error(got, exact) < bound
    assert results[1][0].transpose(1, 2).is_contiguous()


def test_half_types_give_float32_and_their_own_gradient(kernel_device: str) -> None:
    x = torch.randn(2, 2, 40, 16).bfloat16().to(kernel_device).requires_grad_()
    y = unit(x)
    assert y.dtype == torch.float32
    assert relative_error(y, unit(x.double().cpu())) < 1e-6
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.dtype == torch.bfloat16


def test_several_vectors_a_token_need_no_copy(kernel_device: str) -> None:
    wide = torch.randn(2, 9, 40, device=kernel_device)
    x = wide[..., 4:].unflatten(-1, (2, 3, 6)).transpose(1, 2).requires_grad_()  # (B, H, L, n, d)
    dy = torch.randn(2, 9, 2, 3, 6, device=kernel_device).transpose(1, 2)
    y = unit(x)
    assert y.shape == x.shape
    assert y.transpose(1, 2).is_contiguous()
    (dx,) = torch.autograd.grad(y, x, dy)
    for j in range(3):
        leaf = x[:, :, :, j].detach().requires_grad_()
        torch.testing.assert_close(y[:, :, :, j], unit(leaf))
        (expected,) = torch.autograd.grad(unit(leaf), leaf, dy[:, :, :, j])
        torch.testing.assert_close(dx[:, :, :, j], expected)
