from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import dplr, dplr_reference
from mechbench.ops.dplr.kernels import forward
from ops.conftest import relative_error
from ops.dplr.kernels.test_forward import MASKED, B, H, draw


def with_gradients(function: Any, given: list[Tensor], dy: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, dy)]


@pytest.mark.parametrize(
    ("L", "K", "P"), [(2, 1, 1), (2, 8, 8), (37, 8, 16), (128, 20, 24), (200, 5, 40), (70, 128, 64)]
)
def test_gradients_are_those_of_the_steps(kernel_device: str, L: int, K: int, P: int) -> None:
    given, dy = draw(L, K, P), torch.randn(B, H, L, P, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(dplr, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(dplr_reference, given, dy), strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 1e-5


@MASKED
@pytest.mark.parametrize("decay", [1.0, 100.0, 1e4])
def test_any_decay_has_gradients(kernel_device: str, decay: float) -> None:
    *given, g = draw(100, 8, 8, 1.0)
    strong = torch.rand(g.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    given = [*given, torch.where(strong, -decay, 0.01 * g)]
    dy = torch.randn(B, H, 100, 8, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(dplr, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(dplr_reference, given, dy), strict=True):
        assert relative_error(got, expected) < 2e-5


@pytest.mark.parametrize("width", [8, 40])
def test_segments_of_a_long_input_give_the_same(
    kernel_device: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_LEAST", 2)  # chunks of a segment: 15 chunks make several
    given, dy = draw(470, 8, width), torch.randn(B, H, 470, width, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(dplr, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(dplr_reference, given, dy), strict=True):
        assert relative_error(got, expected) < 1e-5


def test_autocast_rounds_products_to_ten_bits(kernel_device: str) -> None:
    given, dy = draw(150, 16, 32), torch.randn(B, H, 150, 32, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    with torch.autocast(kernel_device, torch.bfloat16):
        ours = with_gradients(dplr, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(dplr_reference, given, dy), strict=True):
        assert got.dtype == torch.float32
        assert relative_error(got, expected) < 5e-3


def test_each_gradient_has_the_type_of_its_input(kernel_device: str) -> None:
    """Types and layouts mixed as in RWKV-7: q, k and v in half, the rest in float32."""
    given, dy = draw(70, 16, 16), torch.randn(B, H, 70, 16, dtype=torch.float64)
    types = [torch.bfloat16] * 3 + [torch.float32] * 3
    low = [x.to(kernel_device, dtype) for x, dtype in zip(given, types, strict=True)]
    low[0], low[3] = low[0].contiguous(), low[3].transpose(-1, -2).contiguous().transpose(-1, -2)
    ours = with_gradients(dplr, low, dy.to(kernel_device, torch.bfloat16))
    exact = with_gradients(dplr_reference, [x.double().cpu() for x in low], dy.bfloat16().double())
    for got, expected, dtype in zip(ours[1:], exact[1:], types, strict=True):
        assert got.dtype == dtype
        assert relative_error(got, expected) < 8e-3
