from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import diagonal_scan, diagonal_scan_reference
from mechbench.ops.diagonal_scan import kernels
from ops.conftest import relative_error


def draw(B: int, L: int, D: int) -> list[Tensor]:
    """Return gates from 0 to 1, many of them near 1, terms and gradients, as float32 holds them."""
    generator = torch.Generator().manual_seed(L + D)
    a = 1 - torch.rand(B, L, D, generator=generator) ** 4
    return [a, *(torch.randn(B, L, D, generator=generator) for _ in range(2))]


def with_gradients(function: Any, a: Tensor, b: Tensor, dh: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in (a, b)]
    h = function(*leaves)
    return [h, *torch.autograd.grad(h, leaves, dh)]


def compare(given: list[Tensor], device: str, bound: float = 2e-6) -> None:
    slow = with_gradients(diagonal_scan_reference, *(x.double() for x in given))
    fast = with_gradients(diagonal_scan, *(x.to(device) for x in given))
    for got, expected in zip(fast, slow, strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < bound


@pytest.mark.parametrize(
    ("B", "L", "D"), [(1, 1, 1), (2, 1, 5), (3, 7, 3), (1, 67, 6), (2, 150, 33)]
)
def test_values_and_gradients_are_those_of_the_steps(
    kernel_device: str, B: int, L: int, D: int
) -> None:
    compare(draw(B, L, D), kernel_device)


@pytest.mark.parametrize("few", [1, 2, 12, 40])
def test_every_number_of_segments_and_tiles_gives_the_same(
    kernel_device: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_ENOUGH", few)
    monkeypatch.setattr(kernels, "_TILE", 32)
    compare(draw(2, 61, 5), kernel_device)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 8192, 384), (32, 64, 1, 8192)),
        ((64, 1000, 64), (16, 128, 1, 1024)),
        ((4, 131072, 64), (32, 64, 64, 2048)),
        ((1, 1, 3), (4, 1, 1, 1)),
    ],
)
def test_sizes_fill_a_gpu(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert kernels.sizes(*shape) == expected


def test_closed_gates_forget_all_and_open_ones_nothing(kernel_device: str) -> None:
    b = torch.ones(1, 9, 2, device=kernel_device)
    a = torch.tensor([0.0, 1.0], device=kernel_device).expand(1, 9, 2)
    found = diagonal_scan(a, b).cpu()
    assert torch.equal(found[0, :, 0], torch.ones(9))
    assert torch.equal(found[0, :, 1], torch.arange(1.0, 10.0))


def test_any_strides_are_read(kernel_device: str) -> None:
    a, b, _ = draw(3, 21, 4)
    given = [
        a.transpose(0, 2).contiguous().transpose(0, 2),
        torch.cat([b, b], -1)[..., :4],
        torch.ones(()).expand(3, 21, 4),  # as the gradient of a sum is
    ]
    compare(given, kernel_device)


def test_half_types_keep_their_type_and_sum_in_float32(kernel_device: str) -> None:
    given = [x.bfloat16() for x in draw(2, 45, 6)]
    found = with_gradients(diagonal_scan, *(x.to(kernel_device) for x in given))
    assert {x.dtype for x in found} == {torch.bfloat16}
    slow = with_gradients(diagonal_scan_reference, *(x.double() for x in given))
    for got, expected in zip(found, slow, strict=True):
        assert relative_error(got, expected) < 2**-7
