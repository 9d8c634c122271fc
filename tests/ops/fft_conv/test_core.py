from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv import fft_conv_reference
from mechbench.ops.fft_conv.core import chunks, gated_conv
from ops.conftest import kernel_device, relative_error  # noqa: F401


class DirectCore:
    """The convolution by the direct sum; notes the lengths that it is asked for."""

    def __init__(self, any_seqlen: bool = False) -> None:
        self.ANY_SEQLEN, self.TAILS = any_seqlen, False
        self.lengths: list[int] = []

    def core_forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.lengths.append(v.shape[-1])
        return fft_conv_reference(v, h).contiguous(), (v.sum(),)

    def core_backward(
        self, dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        self.lengths.append(v.shape[-1])
        assert torch.equal(kept[0], v.sum())
        args = v.detach().requires_grad_(), h.detach().requires_grad_()
        with torch.enable_grad():
            dv, dh = torch.autograd.grad(fft_conv_reference(*args), args, dz)
        return dv, dh


def arguments(L: int, K: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 * L + K)
    shapes = ((2, 3, L), (3, K), (3,), (2, 3, L), (2, 3, L))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def compare(
    L: int, K: int, device: str, dtype: torch.dtype, bound: float, any_seqlen: bool = False
) -> list[int]:
    exact = [x.requires_grad_() for x in arguments(L, K)]
    low = [x.detach().to(device, dtype).requires_grad_() for x in exact]
    core = DirectCore(any_seqlen)
    y, want = gated_conv(core, *low), fft_conv_reference(*exact)
    assert relative_error(y, want) < bound
    grad = torch.randn(want.shape, dtype=torch.float64)
    got = torch.autograd.grad(y, low, grad.to(y))
    for a, b in zip(got, torch.autograd.grad(want, exact, grad), strict=True):
        assert relative_error(a, b) < bound
    return core.lengths


@pytest.mark.parametrize("L", [1, 2, 5, 33, 128, 140])
@pytest.mark.parametrize("extra", [-3, 0, 4])
def test_the_core_alone_does_the_lengths_without_a_tail(L: int, extra: int) -> None:
    assert compare(L, max(1, L + extra), "cpu", torch.float64, 1e-12) == [L, L]


@pytest.mark.parametrize("L", [129, 136, 1026])
@pytest.mark.parametrize("extra", [-5, 0, 3])
def test_a_core_that_takes_any_length_has_no_tail(L: int, extra: int) -> None:
    assert compare(L, L + extra, "cpu", torch.float64, 1e-12, any_seqlen=True) == [L, L]


@pytest.mark.parametrize("without", [(), (2,), (3,), (4,), (2, 3, 4)])
def test_gradcheck_with_and_without_gates_and_skip(without: tuple[int, ...]) -> None:
    args = [None if i in without else x.requires_grad_() for i, x in enumerate(arguments(7, 5))]
    assert torch.autograd.gradcheck(lambda *a: gated_conv(DirectCore(), *a), args)


@pytest.mark.parametrize(
    ("L", "core_length"), [(128, 128), (129, 128), (130, 128), (136, 128), (137, 137), (1026, 1024)]
)
@pytest.mark.parametrize("extra", [-5, 0, 3])
def test_a_few_outputs_over_a_power_of_two_are_a_tail(
    kernel_device: str,  # noqa: F811
    L: int,
    core_length: int,
    extra: int,
) -> None:
    lengths = compare(L, L + extra, kernel_device, torch.float32, 1e-5)
    assert lengths == [core_length, core_length]


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (5, 2), (6, 3), (7, 100)])
def test_chunks_cover_every_channel_once(channels: int, size: int) -> None:
    x = torch.arange(channels).expand(3, channels)[..., None]
    parts = [x[:, chunk] for chunk in chunks(x, 16, 3 * 16 * size)]
    assert torch.equal(torch.cat(parts, 1), x)
    assert all(part.shape[1] <= size for part in parts)
