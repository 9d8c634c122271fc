from __future__ import annotations

import pytest
import torch

from mechbench.ops.window import kernels as kernel
from mechbench.ops.window import window, windowed_product
from ops.conftest import relative_error


@pytest.mark.parametrize("L", [1, 2, 5, 33, 130, 1500])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.05, 0.7)])
def test_forward_and_backward_are_the_window(
    kernel_device: str, L: int, shift: float, scale: float
) -> None:
    torch.manual_seed(L)
    h, dy = (torch.randn(2, 3, L, dtype=torch.float64).requires_grad_() for _ in range(2))
    alpha = torch.tensor([0.3, 2.0, 40.0], dtype=torch.float64)
    want = window(h, alpha, 1 / L, shift, scale)  # float64 has no kernel
    (want_grad,) = torch.autograd.grad(want, h, dy)
    low, low_dy, rate = (x.detach().to(kernel_device, torch.float32) for x in (h, dy, alpha))
    ours = low.requires_grad_()
    y = window(ours, rate, 1 / L, shift, scale)
    assert relative_error(y, want) < 1e-6
    assert relative_error(torch.autograd.grad(y, ours, low_dy)[0], want_grad) < 1e-6
    assert torch.equal(kernel.scale_rows(ours.detach(), rate, 1 / L, shift, scale), y)


def test_rows_may_be_strided(kernel_device: str) -> None:
    h = torch.randn(2, 33, 3, device=kernel_device).transpose(1, 2)
    alpha = torch.tensor([0.3, 2.0, 40.0], device=kernel_device)
    y = kernel.scale_rows(h, alpha, 0.1, 0.0, 1.0)
    assert y.is_contiguous()
    assert torch.equal(y, kernel.scale_rows(h.contiguous(), alpha, 0.1, 0.0, 1.0))


def assert_the_product_is_the_formula(device: str, L: int, N: int, D: int, W: int) -> None:
    shapes = (N * D, W), (L, W), (N, D, L)
    weight, inner, dy = (torch.randn(s, dtype=torch.float64).float().double() for s in shapes)
    alpha = torch.linspace(0.3, 40.0, D).double()
    exact = [weight.requires_grad_(), inner.requires_grad_()]
    want = windowed_product(*exact, alpha, 1 / L, 0.05, 0.7)  # float64 has no kernel
    low = [x.detach().to(device, torch.float32).requires_grad_() for x in exact]
    rate, low_dy = alpha.to(device, torch.float32), dy.to(device, torch.float32)
    y = windowed_product(*low, rate, 1 / L, 0.05, 0.7)
    assert y.shape == want.shape == (N, D, L)
    assert relative_error(y, want) < 2e-6
    wanted = torch.autograd.grad(want, exact, dy)
    for got, expected in zip(torch.autograd.grad(y, low, low_dy), wanted, strict=True):
        assert relative_error(got, expected) < 2e-6


@pytest.mark.parametrize("L", [1, 2, 33, 130, 1100])
@pytest.mark.parametrize(("N", "D", "W"), [(1, 3, 8), (2, 3, 64), (1, 70, 20)])
def test_the_product_and_its_gradients_are_the_formula(
    kernel_device: str, L: int, N: int, D: int, W: int
) -> None:
    assert_the_product_is_the_formula(kernel_device, L, N, D, W)


@pytest.mark.parametrize(("programs", "shortest"), [((1, 1), 256), ((7, 7), 32)])
def test_a_program_takes_many_channels_or_times_where_there_are_many(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch, programs: tuple[int, int], shortest: int
) -> None:
    monkeypatch.setattr(kernel, "_PROGRAMS", programs)
    monkeypatch.setattr(kernel, "_SHORTEST", shortest)
    monkeypatch.setattr(kernel, "_MANY", 100)
    assert_the_product_is_the_formula(kernel_device, 600, 2, 67, 24)


def test_without_gradients_the_product_is_the_same(kernel_device: str) -> None:
    weight, inner = (torch.randn(n, 20, device=kernel_device) for n in (6, 70))
    alpha = torch.tensor([0.3, 2.0, 40.0], device=kernel_device)
    y = windowed_product(weight, inner, alpha, 0.1)
    assert torch.equal(windowed_product(weight.requires_grad_(), inner, alpha, 0.1), y)
