from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import decayed_average, exp_average_reference, windowed_average
from mechbench.ops.exp_average import _fused, kernels
from ops.conftest import relative_error

B = 2


def draw(L: int, D: int, W: int, size: float = 1.0) -> list[Tensor]:
    """Return k, v, near and decay, in float64; decays from none to fast."""
    generator = torch.Generator().manual_seed(L + D + W)
    k, v = torch.randn(2, B, L, D, generator=generator, dtype=torch.float64)
    near = torch.randn(D, W, generator=generator, dtype=torch.float64)
    decay = torch.rand(D, generator=generator, dtype=torch.float64) ** 4 * 8
    decay[0] = 0.0
    return [size * k, v, near, decay]


def with_gradients(function: Any, given: list[Tensor], dy: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, dy)]


def compare(device: str, given: list[Tensor], bound: float) -> None:
    dy = torch.randn(given[1].shape, generator=torch.Generator().manual_seed(1)).double()
    ours = with_gradients(_fused, [x.to(device, torch.float32) for x in given], dy.to(device))
    given = [x.float().double() for x in given]
    theirs = with_gradients(exp_average_reference, given, dy.float().double())
    for got, expected in zip(ours, theirs, strict=True):
        assert got.shape == expected.shape
        assert got.isfinite().all()
        assert (got.detach().double().cpu() - expected).norm() <= bound * (1 + expected.norm())


@pytest.mark.parametrize(
    ("L", "D", "W"),
    [(1, 1, 1), (1, 3, 4), (2, 4, 1), (7, 5, 3), (8, 33, 1), (9, 2, 9), (31, 3, 40), (70, 6, 1),
     (65, 40, 5), (70, 2, 32)],
)  # fmt: skip
def test_values_and_gradients_are_those_of_the_softmax(
    kernel_device: str, L: int, D: int, W: int
) -> None:
    compare(kernel_device, draw(L, D, W), 1e-5)


@pytest.mark.parametrize(("L", "W"), [(100, 1), (75, 6)])
@pytest.mark.parametrize("size", [30.0, 1e4])
def test_keys_of_any_size(kernel_device: str, L: int, W: int, size: float) -> None:
    compare(kernel_device, draw(L, 3, W, size), 1e-6 * size)


@pytest.mark.parametrize("W", [1, 12])
def test_short_segments_are_joined(
    kernel_device: str, W: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_MIN_TILES", 1)
    compare(kernel_device, draw(150, 2, W), 1e-5)  # 19 segments, some shorter than the window


def test_long_segments_are_walked(kernel_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_MAX_SEGMENTS", 2)
    compare(kernel_device, draw(150, 2, 3), 1e-5)


def test_biases_of_any_size(kernel_device: str) -> None:
    k, v, near, decay = draw(50, 3, 4)
    for size in (-1e3, 1e3):
        compare(kernel_device, [k, v, near + size, decay], 2e-4)


def test_the_operators_averages_take_the_kernels(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    k, v, near, decay = (x.to(kernel_device, torch.float32) for x in draw(37, 3, 5))
    calls = []
    run = kernels.forward
    monkeypatch.setattr(kernels, "forward", lambda *x: calls.append(1) or run(*x))
    exact = [x.double() for x in (k, v, near, decay)]
    expected = exp_average_reference(*exact[:2], exact[2][:, 1:2], exact[3])
    assert relative_error(decayed_average(k, v, near[:, 1], decay), expected) < 1e-6
    expected = exp_average_reference(*exact[:3], 0 * exact[3])
    assert relative_error(windowed_average(k, v, near), expected) < 1e-6
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_round_once(kernel_device: str, dtype: torch.dtype) -> None:
    k, v, near, decay = (x.float() for x in draw(45, 6, 3))
    given = [k.to(dtype), v.to(dtype), near, decay]
    dy = torch.randn(v.shape).to(dtype)
    ours = with_gradients(_fused, [x.to(kernel_device) for x in given], dy.to(kernel_device))
    theirs = with_gradients(exp_average_reference, [x.double() for x in given], dy.double())
    assert [x.dtype for x in ours] == [dtype] * 3 + [torch.float32] * 2
    for got, expected in zip(ours, theirs, strict=True):
        assert relative_error(got, expected) < 1e-2


def test_any_strides_are_read(kernel_device: str) -> None:
    k, v, near, decay = (x.to(kernel_device, torch.float32) for x in draw(20, 4, 2))
    dy = torch.randn(v.shape, device=kernel_device)
    both = torch.cat([k, v], -1)
    slices = [both[..., :4], v.transpose(1, 2).contiguous().transpose(1, 2), near, decay]
    far = dy.transpose(0, 1).contiguous().transpose(0, 1)
    expected = with_gradients(_fused, [k, v, near, decay], dy)
    for got, same in zip(with_gradients(_fused, slices, far), expected, strict=True):
        assert torch.equal(got, same)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("W", [1, 32])
def test_a_graph_of_a_long_sequence_repeats_the_same_bits(W: int) -> None:
    given = [x.float().cuda() for x in draw(5000, 70, W)]
    dy = torch.randn_like(given[1])
    eager = with_gradients(_fused, given, dy)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        captured = with_gradients(_fused, given, dy)
    graph.replay()
    for got, expected in zip(captured, eager, strict=True):
        assert torch.equal(got, expected)
    theirs = with_gradients(
        exp_average_reference, [x[:, :1000] if x.ndim == 3 else x for x in given], dy[:, :1000]
    )
    short = with_gradients(_fused, [x[:, :1000] if x.ndim == 3 else x for x in given], dy[:, :1000])
    for got, expected in zip(short, theirs, strict=True):
        assert relative_error(got, expected) < 1e-4
