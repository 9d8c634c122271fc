from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv import choose_backend, fft_conv, fft_conv_reference
from mechbench.ops.fft_conv.backends import toeplitz_backend as backend
from ops.conftest import kernel_device, relative_error  # noqa: F401

BOUND = 4e-2  # gates and the skip term round to bfloat16 too, between sums that may cancel


def arguments(L: int, K: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 * L + K)
    shapes = ((2, 3, L), (3, K), (3,), (2, 3, L), (2, 3, L))
    return [torch.randn(s, generator=generator).bfloat16().double() for s in shapes]


@pytest.mark.parametrize("L", [1, 5, 33, 130, 1026])
@pytest.mark.parametrize("extra", [-3, 4])
@pytest.mark.parametrize("wide", [(), (1, 2)])
def test_equals_the_direct_sum(
    kernel_device: str,  # noqa: F811
    L: int,
    extra: int,
    wide: tuple[int, ...],
) -> None:
    exact = [x.requires_grad_() for x in arguments(L, max(1, L + extra))]
    types = [torch.float32 if i in wide else torch.bfloat16 for i in range(5)]
    low = [x.detach().to(kernel_device, t) for x, t in zip(exact, types, strict=True)]
    low = [x.requires_grad_() for x in low]
    y, want = fft_conv(*low, backend="toeplitz"), fft_conv_reference(*exact)
    assert y.dtype == torch.bfloat16
    assert relative_error(y, want) < BOUND
    grads = torch.autograd.grad(y, low, torch.ones_like(y))
    wanted = torch.autograd.grad(want, exact, torch.ones_like(want))
    for got, expected, dtype in zip(grads, wanted, types, strict=True):
        assert got.dtype == dtype
        assert relative_error(got, expected) < BOUND


@pytest.mark.parametrize(
    ("L", "dtype", "reason"),
    [
        (1, torch.bfloat16, None),
        (4224, torch.float16, None),
        (4225, torch.bfloat16, "4225 tokens: above 4224 transforms cost less"),
        (64, torch.float32, "the input is torch.float32: products are of bfloat16 or float16"),
    ],
)
def test_what_is_refused(
    monkeypatch: pytest.MonkeyPatch, L: int, dtype: torch.dtype, reason: str | None
) -> None:
    monkeypatch.setattr(backend, "unavailable", lambda *_: None)
    assert backend.unsupported(torch.empty(1, 1, L, dtype=dtype), torch.empty(1, L)) == reason


@pytest.mark.parametrize(("major", "refused"), [(7, True), (8, False), (9, False)])
def test_a_gpu_without_bfloat16_products_is_refused(
    monkeypatch: pytest.MonkeyPatch, major: int, refused: bool
) -> None:
    monkeypatch.setattr(backend, "unavailable", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, 5))

    class OnCuda(torch.Tensor):
        is_cuda = True

    u = torch.empty(1, 1, 4, dtype=torch.bfloat16).as_subclass(OnCuda)
    told = backend.unsupported(u, torch.empty(1, 4))
    assert (told is not None and "expected compute capability 8.0" in told) == refused


def test_float64_and_the_cpu_are_refused() -> None:
    u = torch.empty(1, 1, 4, dtype=torch.float64)
    assert backend.unsupported(u, torch.empty(1, 4)) is not None


def test_is_preferred_for_short_sequences_of_a_half_type(kernel_device: str) -> None:  # noqa: F811
    u, h = torch.empty(1, 1, 1024, device=kernel_device), torch.empty(1, 8, device=kernel_device)
    assert choose_backend(u.bfloat16(), h) == "toeplitz"
    assert choose_backend(u, h) == "cufft"
