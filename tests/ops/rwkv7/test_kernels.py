from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mechbench.ops import rwkv7_output, rwkv7_signals
from ops.conftest import relative_error

B = 2
SIZES = [(1, 2, 3), (5, 3, 4), (70, 2, 20), (33, 1, 64)]  # L, heads, channels of each


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def heads(L: int, H: int, d: int) -> Tensor:
    """Return (B, H, L, d), a part of wider rows as the operator's are."""
    return normal(B, L, 2 * H * d)[..., : H * d].unflatten(-1, (H, d)).transpose(1, 2)


def compare(function: Any, given: list[Tensor], device: str, dtype: torch.dtype) -> list[float]:
    """Return the errors of values and gradients against those in float64."""
    results = []
    for leaves in (given, [x.to(device, dtype) for x in given]):
        leaves = [x.detach().requires_grad_() for x in leaves]
        values = function(*leaves)
        grads = [torch.ones_like(x) * torch.arange(x.shape[-1]).to(x) for x in values]
        results.append([*values, *torch.autograd.grad(values, leaves, grads)])
    for exact, got in zip(*results, strict=True):
        assert exact.shape == got.shape
    return [relative_error(got, exact) for exact, got in zip(*results, strict=True)]


@pytest.mark.parametrize(("L", "H", "d"), SIZES)
def test_signals_and_gradients_are_those_of_the_formulas(
    kernel_device: str, L: int, H: int, d: int
) -> None:
    D = H * d
    z, rate, speed = (normal(B, L, 2 * D)[..., D:] for _ in range(3))
    z = z + 0.5 * z.sign()  # a key of one channel near 0 has a norm without a slope
    given = [z, rate, speed, normal(D) + 2, normal(D)]

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        return rwkv7_signals(*leaves, H)

    errors = compare(function, given, kernel_device, torch.float32)
    assert max(errors) < 3e-6


@pytest.mark.parametrize(("L", "H", "d"), SIZES)
def test_output_and_gradients_are_those_of_the_formulas(
    kernel_device: str, L: int, H: int, d: int
) -> None:
    D = H * d

    def function(y: Tensor, r: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor]:
        gate, bonus, weight, bias = rest
        norm = nn.GroupNorm(H, D, eps=1e-2)
        del norm.weight, norm.bias  # parameters, in place of which leaves are wanted
        norm.weight, norm.bias = weight, bias
        return (rwkv7_output(y, r, k, v, gate, bonus, norm),)

    given = [*(heads(L, H, d) for _ in range(4)), normal(B, L, D), normal(H, d), normal(D)]
    errors = compare(function, [*given, normal(D)], kernel_device, torch.float32)
    assert max(errors) < 3e-6


def test_one_channel_works(kernel_device: str) -> None:
    z, rate, speed, remove, blend = (normal(1, 1, 1).to(kernel_device, torch.float32) + 2,) * 5
    k, read, written, log_w = rwkv7_signals(z, rate, speed, remove[0, 0], blend[0, 0], 1)
    assert read.item() == -1
    torch.testing.assert_close(written, rate.sigmoid()[None])
    norm = nn.GroupNorm(1, 1).to(kernel_device)
    out = rwkv7_output(read, k, written, log_w, z, blend[0], norm)
    torch.testing.assert_close(out, (z * k * written * blend * log_w)[0])


def test_half_types_stay_what_they_are(kernel_device: str) -> None:
    L, H, d = 40, 2, 16
    z, rate, speed, gate = (normal(B, L, H * d).bfloat16().to(kernel_device) for _ in range(4))
    weights = [normal(H * d).float().to(kernel_device) for _ in range(2)]
    k, read, written, log_w = rwkv7_signals(z, rate, speed, *weights, H)
    assert [x.dtype for x in (k, read, written, log_w)] == [torch.bfloat16, *[torch.float32] * 3]
    exact = rwkv7_signals(*(x.double().cpu() for x in (z, rate, speed, *weights)), H)
    for got, expected in zip((k, read, written, log_w), exact, strict=True):
        assert relative_error(got, expected) < 8e-3
    norm = nn.GroupNorm(H, H * d).to(kernel_device)
    bonus = weights[0].view(H, d)
    out = rwkv7_output(k, k, k, k, gate, bonus, norm)
    assert out.dtype == torch.bfloat16
    k, gate, bonus = (x.double().cpu() for x in (k, gate, bonus))
    expected = rwkv7_output(k, k, k, k, gate, bonus, norm.double().cpu())
    assert relative_error(out, expected) < 8e-3
