from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops import rotary, rotary_heads
from mechbench.ops.rotary import kernels, rates
from ops.conftest import relative_error


@pytest.mark.parametrize(("L", "H", "d"), [(1, 1, 2), (5, 3, 6), (70, 2, 32), (33, 12, 64)])
def test_values_and_gradients_are_those_of_the_formula(
    kernel_device: str, L: int, H: int, d: int
) -> None:
    qkv, *grads = (torch.randn(shape) for shape in [(2, L, 3, H, d), *[(2, H, L, d)] * 3])
    exact = qkv.double().requires_grad_()
    expected = rotary_heads(exact)
    (slow,) = torch.autograd.grad(expected, exact, [g.double() for g in grads])
    low = qkv.to(kernel_device).requires_grad_()
    got = rotary_heads(low)
    (fast,) = torch.autograd.grad(got, low, [g.to(kernel_device) for g in grads])
    for one, other in zip([*got, fast], [*expected, slow], strict=True):
        assert one.shape == other.shape
        assert relative_error(one, other) < 1e-5
    single = low.detach()[:, :, 0].transpose(1, 2).requires_grad_()
    y = rotary(single)
    assert torch.equal(y, got[0])
    (dx,) = torch.autograd.grad(y, single, grads[0].to(kernel_device))
    assert torch.equal(dx, fast[:, :, 0].transpose(1, 2))


def test_half_types_round_once(kernel_device: str) -> None:
    x = torch.randn(1, 2, 9, 8).bfloat16()
    expected = rotary(x.double()).bfloat16()
    off = rotary(x.to(kernel_device)).cpu().double() - expected.double()
    assert off.abs().max() <= 2**-7 * expected.abs().max()


def test_any_strides_are_read(kernel_device: str) -> None:
    x = torch.randn(2, 8, 3, 6, device=kernel_device).permute(0, 2, 3, 1)  # features far apart
    rate = rates(x, 100.0)

    def turned(x: Tensor) -> Tensor:
        return kernels.turn(x, rate, torch.empty(x.shape, device=x.device))

    assert torch.equal(turned(x), turned(x.contiguous()))
