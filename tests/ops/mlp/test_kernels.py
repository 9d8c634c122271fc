from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.ops.mlp import kernels
from ops.conftest import relative_error

SIZES = [(1, 1, 1), (70, 16, 64), (300, 48, 192), (140, 64, 256), (33, 20, 100)]


def arguments(N: int, D: int, H: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Return u, weights and biases, and dy; float64, but numbers that `dtype` has."""
    shapes = (N, D), (H, D), (H,), (D, H), (D,), (N, D)
    scales = 1.0, D**-0.5, 0.5, H**-0.5, 0.5, 1.0
    drawn = (s * torch.randn(z) for z, s in zip(shapes, scales, strict=True))
    *args, dy = (t.to(dtype).double() for t in drawn)
    return args, dy


@pytest.mark.parametrize(("N", "D", "H"), SIZES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_are_the_formula_and_its_gradients(
    kernel_device: str, N: int, D: int, H: int, dtype: torch.dtype
) -> None:
    exact, dy = arguments(N, D, H, dtype)
    u, up, up_bias, down, down_bias = (t.requires_grad_() for t in exact)
    want = F.linear(F.gelu(F.linear(u, up, up_bias)), down, down_bias)
    expected = torch.autograd.grad(want, exact, dy)
    bound = 1e-2 if dtype == torch.bfloat16 else 1e-3

    ours = [t.detach().to(kernel_device, torch.float32) for t in exact]
    ours[0] = ours[0].to(dtype)
    y, *low = kernels.forward(*ours, dtype)
    assert y.dtype == dtype
    assert relative_error(y, want) < bound
    for copy, weight in zip(low, (up, down), strict=True):
        assert copy.dtype == dtype
        assert torch.equal(copy.double().cpu(), weight)
    got = kernels.backward(ours[0], low[0], ours[2], low[1], dy.to(kernel_device, dtype))
    assert [t.dtype for t in got] == [dtype] + 4 * [torch.float32]
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert relative_error(a, b) < bound


def test_more_tiles_than_programs(kernel_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args, dy = arguments(700, 16, 64, torch.float16)
    u, up, up_bias, down, down_bias = (t.to(kernel_device, torch.float16) for t in args)
    grad = dy.to(kernel_device, torch.float16)

    def run() -> list[Tensor]:
        y, *low = kernels.forward(u, up, up_bias, down, down_bias, torch.float16)
        return [y, *kernels.backward(u, low[0], up_bias, low[1], grad)]

    once = run()
    monkeypatch.setattr(kernels, "_FORWARD", (128, 32, 2))
    monkeypatch.setattr(kernels, "_BACKWARD", (64, 32, 3))
    for a, b in zip(once, run(), strict=True):
        assert relative_error(a, b) < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_takes_and_gives_float32_as_well(kernel_device: str, dtype: torch.dtype) -> None:
    args, dy = arguments(20, 16, 64, torch.bfloat16)
    u, up, up_bias, down, down_bias = (t.to(kernel_device, dtype) for t in args)
    y, *low = kernels.forward(u, up, up_bias, down, down_bias, torch.bfloat16)
    du, *_ = kernels.backward(u, low[0], up_bias, low[1], dy.to(kernel_device, dtype))
    assert y.dtype == torch.bfloat16
    assert du.dtype == dtype


@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0, 1e6])
def test_activation_is_gelu_at_every_scale(kernel_device: str, scale: float) -> None:
    """Through weights 1 a program shows GELU itself, and as the gradient of u its slope."""
    h = (scale * torch.linspace(-6, 6, 500)).to(torch.float16).clamp(-6e4, 6e4)
    one, zero = torch.ones(1, 1, device=kernel_device), torch.zeros(1, device=kernel_device)
    u = h[:, None].to(kernel_device)
    y, *low = kernels.forward(u, one, zero, one, zero, torch.float16)
    du, *_ = kernels.backward(u, low[0], zero, low[1], torch.ones_like(u))
    x = h.double().requires_grad_()
    want = F.gelu(x)
    (slope,) = torch.autograd.grad(want.sum(), x)
    torch.testing.assert_close(y[:, 0].double().cpu(), want, atol=8e-6, rtol=1e-3)
    torch.testing.assert_close(du[:, 0].double().cpu(), slope, atol=2e-5, rtol=1e-3)
