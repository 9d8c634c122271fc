from __future__ import annotations

import pytest
import torch

from mechbench.ops.window import kernels as kernel
from mechbench.ops.window import window
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
