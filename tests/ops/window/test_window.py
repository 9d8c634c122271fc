from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mechbench.ops.window import window, windowed_product
from ops.conftest import relative_error


def arguments(L: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(L)
    h = torch.randn(2, 3, L, generator=generator, dtype=torch.float64)
    return h, torch.tensor([0.3, 2.0, 40.0], dtype=torch.float64)


@pytest.mark.parametrize("L", [1, 2, 5, 33, 130, 1500])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_is_the_formula(device: str, L: int, dtype: torch.dtype, bound: float) -> None:
    h, alpha = arguments(L)
    step, shift, scale = 1 / L, 0.05, 0.7
    factor = torch.tensor(
        [[(math.exp(-a * step * t) + shift) * scale for t in range(L)] for a in alpha.tolist()],
        dtype=torch.float64,
    )
    ours = h.to(device, dtype).requires_grad_()
    y = window(ours, alpha.to(device, dtype), step, shift, scale)
    assert y.dtype == dtype
    assert relative_error(y, h * factor) < bound
    (grad,) = torch.autograd.grad(y, ours, h.flip(0).to(device, dtype))
    assert relative_error(grad, h.flip(0) * factor) < bound


def test_by_default_the_window_starts_at_one_and_decays(device: str) -> None:
    h, alpha = (x.to(device).abs() for x in arguments(9))
    y = window(torch.ones_like(h), alpha, 0.5)
    assert (y[..., 0] == 1).all()
    assert (y.diff() < 0).all()


def test_gradcheck_with_alpha_constant() -> None:
    h, alpha = arguments(7)
    assert torch.autograd.gradcheck(lambda x: window(x, alpha, 0.1, 0.01, 2.0), h.requires_grad_())


def test_the_windowed_product_is_the_window_of_the_product(device: str) -> None:
    weight, inner = (torch.randn(n, 5, dtype=torch.float64, device=device) for n in (6, 7))
    alpha = torch.tensor([0.3, 2.0, 40.0], dtype=torch.float64, device=device)
    got = windowed_product(weight, inner, alpha, 0.1, 0.05, 0.7)
    h = torch.einsum("cw,tw->ct", weight, inner).view(2, 3, 7)
    torch.testing.assert_close(got, window(h, alpha, 0.1, 0.05, 0.7))
