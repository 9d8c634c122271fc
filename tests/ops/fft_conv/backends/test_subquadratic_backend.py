from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv import fft_conv, fft_conv_reference
from mechbench.ops.fft_conv.backends import subquadratic_backend as backend
from ops.conftest import relative_error


def spectra(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    n = x.shape[-1]
    assert weight.shape[-1] == n >= 128
    assert n & (n - 1) == 0
    return torch.fft.rfft(x, 2 * n), torch.fft.rfft(weight, 2 * n)


def forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = spectra(x, weight)
    return torch.fft.irfft(a * b)[..., : x.shape[-1]], a, b


def backward(grad: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    g, n = torch.fft.rfft(grad, 2 * grad.shape[-1]), grad.shape[-1]
    return torch.fft.irfft(g * b.conj())[..., :n], torch.fft.irfft((g * a.conj()).sum(0))[..., :n]


# What the package does, on the CPU: filters of a power-of-two length and nothing else.
PACKAGE = SimpleNamespace(
    fft_conv1d_blocked_fwd_primitive=lambda x, weight, _: forward(x, weight)[0],
    fft_conv1d_blocked_bwd_primitive=lambda grad, x, weight, _: backward(grad, *spectra(x, weight)),
    fft_conv1d_long_fwd_primitive=forward,
    fft_conv1d_long_bwd_primitive=backward,
)


@pytest.mark.parametrize("L", [1, 2, 5, 33, 130, 1500, 16500])
@pytest.mark.parametrize("extra", [-3, 4])
def test_padding_to_a_power_of_two_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, L: int, extra: int
) -> None:
    monkeypatch.setattr(torch.ops, "subquadratic_ops_torch", PACKAGE, raising=False)
    torch.manual_seed(L)
    v, dz = torch.randn(2, 2, 3, L, dtype=torch.float64)
    h = torch.randn(3, max(1, L + extra), dtype=torch.float64)
    args = [v.requires_grad_(), h.requires_grad_()]
    want = fft_conv(*args, backend="torch")
    with torch.no_grad():
        z, kept = backend.core_forward(v, h)
        grads = backend.core_backward(dz, v, h, kept)
    assert z.is_contiguous()
    assert len(kept) == (2 if L > 16384 else 0)
    assert relative_error(z, want) < 1e-10
    for got, expected in zip(grads, torch.autograd.grad(want, args, dz), strict=True):
        assert relative_error(got, expected) < 1e-10


@pytest.mark.parametrize(
    ("L", "dtype", "reason"),
    [
        (128, torch.bfloat16, None),
        (128, torch.float16, None),
        (128, torch.float32, "accurate to bfloat16 only"),
        (127, torch.bfloat16, "127 tokens: below 128"),
    ],
)
def test_what_is_refused(
    monkeypatch: pytest.MonkeyPatch, L: int, dtype: torch.dtype, reason: str | None
) -> None:
    monkeypatch.setattr(backend, "unavailable", lambda *_: None)
    monkeypatch.setattr(backend, "_missing", lambda: None)
    told = backend.unsupported(torch.empty(1, 1, L, dtype=dtype), torch.empty(1, L))
    assert told is None if reason is None else reason in str(told)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    told = backend._missing.__wrapped__()
    assert "subquadratic_ops_torch is not installed: pip install 'mechbench[cuda]'" in told


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("L", "K"), [(128, 100), (130, 130), (1500, 1500), (1500, 1600)])
def test_the_package_equals_the_direct_sum(L: int, K: int) -> None:
    torch.manual_seed(L)
    low = [torch.randn(s, device="cuda").bfloat16() for s in ((2, 3, L), (3, K), (3,))]
    if reason := backend.unsupported(*low[:2]):
        pytest.skip(reason)
    exact = [x.double().requires_grad_() for x in low]
    y = fft_conv(*(x.requires_grad_() for x in low), backend="subquadratic")
    want = fft_conv_reference(*exact)
    assert relative_error(y, want) < 2e-2
    grads = torch.autograd.grad(y, low, torch.ones_like(y))
    for got, expected in zip(
        grads, torch.autograd.grad(want, exact, torch.ones_like(want)), strict=True
    ):
        assert relative_error(got, expected) < 2e-2
