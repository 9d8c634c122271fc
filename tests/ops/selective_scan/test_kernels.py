from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import selective_scan, selective_scan_reference
from mechbench.ops.selective_scan import kernels
from ops.conftest import relative_error

B = 2


def draw(L: int, E: int, N: int, strength: float = 0.3) -> list[Tensor]:
    """Return x, dt, rate, b, c, skip and dy, as float32 holds them."""
    generator = torch.Generator().manual_seed(L + E + N)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rate = torch.arange(1.0, N + 1) + normal(E, N).square()
    x, b, c, dy = normal(B, L, E), normal(B, L, N), normal(B, L, N), normal(B, L, E)
    return [x, strength * normal(B, L, E).square(), rate, b, c, normal(E), dy]


def fused(*given: Tensor) -> Tensor:
    *others, skip = given
    return selective_scan(*others, skip=skip)


def steps(*given: Tensor) -> Tensor:
    *others, skip = given
    return selective_scan_reference(*others) + skip * given[0]


def with_gradients(function: Any, given: list[Tensor]) -> list[Tensor]:
    *leaves, dy = given
    leaves = [x.detach().requires_grad_() for x in leaves]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, dy)]


def compare(given: list[Tensor], device: str, bound: float = 5e-6) -> None:
    slow = with_gradients(steps, [x.double() for x in given])
    fast = with_gradients(fused, [x.to(device) for x in given])
    for got, expected in zip(fast, slow, strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < bound


@pytest.mark.parametrize(
    ("L", "E", "N", "strength"),
    [(1, 3, 4, 1), (7, 5, 3, 0), (37, 3, 4, 0.3), (16, 1, 1, 0.3), (19, 6, 16, 5), (3, 66, 2, 1)],
)
def test_values_and_gradients_are_those_of_the_steps(
    kernel_device: str, L: int, E: int, N: int, strength: float
) -> None:
    compare(draw(L, E, N, strength), kernel_device)


def test_a_wide_state_is_computed_too(kernel_device: str) -> None:
    compare(draw(3, 2, 64), kernel_device)


@pytest.mark.parametrize("programs", [4, 9])
def test_segments_are_joined(
    kernel_device: str, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_ENOUGH", programs)
    compare(draw(67, 3, 4, 0.05), kernel_device)


@pytest.mark.parametrize(
    ("shape", "forward", "backward"),
    [
        ((64, 1024, 128, 16), (16, 8, 1), (32, 4, 1)),
        ((64, 1024, 768, 16), (16, 48, 1), (32, 24, 1)),
        ((4, 131072, 128, 16), (16, 8, 16), (32, 4, 16)),
        ((64, 32, 128, 16), (16, 8, 1), (32, 4, 1)),
    ],
)
def test_plans_fill_a_gpu(
    shape: tuple[int, ...], forward: tuple[int, ...], backward: tuple[int, ...]
) -> None:
    """Channels of a program, blocks of channels, segments."""
    for expected, *sizes in ((forward, 256, 16, 512), (backward, 512, 8, 256)):
        cut = kernels.plan(*shape, *sizes)
        assert (cut.tile["W"], cut.blocks, cut.segments) == expected
        assert cut.span % kernels.CHUNK == 0
        assert cut.tile["N1"] * cut.tile["N2"] == shape[3]


def test_strong_decay_loses_nothing(kernel_device: str) -> None:
    """A difference of states would lose what little of the past is left."""
    x, dt, *others = draw(9, 3, 4)
    compare([x, dt + 20, *others], kernel_device)


def test_any_strides_are_read_and_gradients_laid_out_as_x(kernel_device: str) -> None:
    x, dt, rate, b, c, skip, _ = draw(21, 5, 4)
    across = x.transpose(1, 2).contiguous().transpose(1, 2)  # as a convolution leaves it
    both = torch.cat([b, c], -1)
    given = [across, dt, rate, *both.split(4, -1), skip, torch.ones(()).expand(B, 21, 5)]
    compare(given, kernel_device)
    leaf = across.to(kernel_device).requires_grad_()
    fused(leaf, *(v.to(kernel_device) for v in given[1:-1])).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.stride() == leaf.stride()


def test_half_types_are_summed_in_float32(kernel_device: str) -> None:
    """x, b and c as autocast gives them: y and the sums are float32, gradients are rounded once."""
    x, dt, rate, b, c, skip, dy = draw(33, 4, 4)
    given = [x.bfloat16(), dt, rate, b.bfloat16(), c.bfloat16(), skip, dy]
    slow = with_gradients(steps, [v.double() for v in given])
    fast = with_gradients(fused, [v.to(kernel_device) for v in given])
    assert [v.dtype for v in fast] == [torch.float32, *(v.dtype for v in given[:-1])]
    for got, expected in zip(fast, slow, strict=True):
        bound = 5e-6 if got.dtype == torch.float32 else 2**-7
        assert relative_error(got, expected) < bound


def test_without_skip_and_in_half_types_alone(kernel_device: str) -> None:
    given = [v.bfloat16() for v in draw(18, 3, 4)[:5]]
    y = selective_scan(*(v.to(kernel_device) for v in given))
    assert y.dtype == torch.bfloat16
    assert relative_error(y, selective_scan_reference(*(v.double() for v in given))) < 2**-7
