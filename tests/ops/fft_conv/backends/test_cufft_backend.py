from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv import fft_conv, fft_conv_reference
from mechbench.ops.fft_conv.backends import cufft_backend
from mechbench.ops.fft_conv.core import chunks
from ops.conftest import kernel_device, relative_error  # noqa: F401


def arguments(L: int, K: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 * L + K)
    shapes = ((2, 5, L), (5, K), (5,), (2, 5, L), (2, 5, L))
    return [torch.randn(s, generator=generator).to(dtype).double() for s in shapes]


def compare(device: str, L: int, K: int, dtype: torch.dtype, bound: float) -> None:
    exact = [x.requires_grad_() for x in arguments(L, K, dtype)]
    low = [x.detach().to(device, dtype).requires_grad_() for x in exact]
    y, want = fft_conv(*low, backend="cufft"), fft_conv_reference(*exact)
    assert y.dtype == dtype
    assert relative_error(y, want) < bound
    grads = torch.autograd.grad(y, low, torch.ones_like(y))
    wanted = torch.autograd.grad(want, exact, torch.ones_like(want))
    for got, expected in zip(grads, wanted, strict=True):
        assert got.dtype == dtype
        assert relative_error(got, expected) < bound


@pytest.mark.parametrize("L", [1, 2, 5, 33, 130, 1500])
@pytest.mark.parametrize("extra", [-3, 4])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_equals_the_direct_sum(
    kernel_device: str,  # noqa: F811
    L: int,
    extra: int,
    dtype: torch.dtype,
    bound: float,
) -> None:
    compare(kernel_device, L, max(1, L + extra), dtype, bound)


@pytest.mark.parametrize("K", [29, 33, 37])
def test_core_gives_taps_beyond_the_input_no_gradient(kernel_device: str, K: int) -> None:  # noqa: F811
    u, h, *_, dz = (x.to(kernel_device, torch.float32) for x in arguments(33, K, torch.float32))
    exact = [x.double().requires_grad_() for x in (u, h)]
    wanted = torch.autograd.grad(fft_conv_reference(*exact), exact, dz.double())
    for got, want in zip(cufft_backend.core_backward(dz, u, h, ()), wanted, strict=True):
        assert relative_error(got, want) < 1e-5


def test_chunks_of_channels_make_no_difference(
    kernel_device: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cufft_backend, "CHUNK_BYTES", 8 * 2 * 40 * 2)  # two of five channels
    assert len(list(chunks(torch.empty(2, 5, 40), 40, cufft_backend.CHUNK_BYTES // 8))) == 3
    compare(kernel_device, 40, 43, torch.float32, 1e-5)


def test_float64_is_refused(kernel_device: str) -> None:  # noqa: F811
    u, h = torch.empty(1, 1, 4, device=kernel_device), torch.empty(1, 4, device=kernel_device)
    assert cufft_backend.unsupported(u, h) is None
    for refused in ((u.double(), h), (u, h.double())):
        assert "float64, expected float32" in str(cufft_backend.unsupported(*refused))
