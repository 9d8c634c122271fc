from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import delta_product, delta_rule, delta_rule_reference
from ops.conftest import relative_error
from ops.delta_rule.kernels.test_forward import B, H, draw


def with_gradients(function: Any, given: list[Tensor], dy: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, dy)]


@pytest.mark.parametrize(
    ("L", "K", "P", "reach"),
    [(2, 8, 8, 1), (37, 8, 16, 2), (128, 16, 24, 1), (200, 5, 8, 2), (70, 128, 64, 1)],
)
def test_values_and_gradients_are_those_of_the_steps(
    kernel_device: str, L: int, K: int, P: int, reach: float
) -> None:
    given, dy = draw(L, K, P, reach), torch.randn(B, H, L, P, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(delta_rule, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(delta_rule_reference, given, dy), strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 5e-5


@pytest.mark.parametrize(("L", "K", "P"), [(1, 1, 1), (37, 8, 16), (200, 20, 24), (70, 64, 40)])
def test_a_decay_per_key_channel_is_that_of_the_steps(
    kernel_device: str, L: int, K: int, P: int
) -> None:
    q, k, v, g, beta = draw(L, K, P, 2)
    g = g[..., None] * torch.rand(K, dtype=torch.float64)
    given, dy = [q, k, v, g, beta], torch.randn(B, H, L, P, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(delta_rule, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(delta_rule_reference, given, dy), strict=True):
        assert got.shape == expected.shape
        # The first decay has no effect: its gradient is 0, and rounded.
        assert (got.cpu() - expected).norm() < 5e-5 * expected.norm().clamp_min(1e-2)


def test_autocast_rounds_products_to_ten_bits(kernel_device: str) -> None:
    given, dy = draw(150, 16, 32), torch.randn(B, H, 150, 32, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    with torch.autocast(kernel_device, torch.bfloat16):
        ours = with_gradients(delta_rule, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(delta_rule_reference, given, dy), strict=True):
        assert got.dtype == torch.float32
        assert relative_error(got, expected) < 5e-3


@pytest.mark.parametrize(("L", "n", "K", "P"), [(1, 3, 8, 8), (37, 2, 16, 24), (70, 3, 5, 8)])
def test_a_token_may_have_several_steps(kernel_device: str, L: int, n: int, K: int, P: int) -> None:
    q, k, v, g, beta = draw(L * n, K, P, 2)
    q = q[:, :, ::n]
    k, v = (x.unflatten(2, (L, n)) for x in (k, v))
    given, dy = [q, k, v, g, beta], torch.randn(B, H, L, P, dtype=torch.float64)

    def slow(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        q = q.repeat_interleave(n, 2)
        y = delta_rule_reference(q, k.flatten(2, 3), v.flatten(2, 3), g, beta)
        return y[:, :, n - 1 :: n]

    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(delta_product, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(slow, given, dy), strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 5e-5


def test_values_of_a_half_type_give_outputs_of_it(kernel_device: str) -> None:
    q, k, v, g, beta = draw(70, 8, 16)
    v, dy = v.bfloat16().double(), torch.randn(B, H, 70, 16).bfloat16().double()
    given = [q, k, v, g, beta]
    low = [x.to(kernel_device, torch.float32) for x in given]
    low[2] = low[2].bfloat16()
    ours = with_gradients(delta_rule, low, dy.to(kernel_device, torch.bfloat16))
    for got, expected in zip(ours, with_gradients(delta_rule_reference, given, dy), strict=True):
        assert relative_error(got, expected) < 5e-3
    assert ours[0].dtype == torch.bfloat16
