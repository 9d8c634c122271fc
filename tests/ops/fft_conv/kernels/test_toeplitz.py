from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv import fft_conv_reference
from mechbench.ops.fft_conv.kernels import toeplitz
from ops.conftest import relative_error

BF16, FP16 = torch.bfloat16, torch.float16
# Outputs are rounded once; gradients of filters stay float32. The interpreter truncates bfloat16.
BOUNDS = {BF16: 8e-3, FP16: 5e-4}


def signals(B: int, D: int, L: int, K: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1000 * L + K)
    v, h, dz = (torch.randn(s, generator=generator) for s in ((B, D, L), (D, K), (B, D, L)))
    return [v.to(dtype), h, dz.to(dtype)]


def compare(device: str, v: Tensor, h: Tensor, dz: Tensor, filter_bound: float = 2e-6) -> None:
    exact = [v.double().cpu().requires_grad_(), h.double().cpu().requires_grad_()]
    want = fft_conv_reference(*exact)
    want_v, want_h = torch.autograd.grad(want, exact, dz.double().cpu())
    v, h, dz = v.to(device), h.to(device), dz.to(device)
    z = toeplitz.toeplitz_forward(v, h)
    dv, dh = toeplitz.toeplitz_backward(dz, v, h)
    assert (z.dtype, dv.dtype, dh.dtype) == (v.dtype, v.dtype, h.dtype)
    assert z.is_contiguous()
    assert relative_error(z, want) < BOUNDS[v.dtype]
    assert relative_error(dv, want_v) < BOUNDS[v.dtype]
    assert relative_error(dh, want_h) < filter_bound


@pytest.mark.parametrize("L", [1, 2, 5, 33, 64, 100, 128, 130, 1023, 1025])
@pytest.mark.parametrize("extra", [-3, 4])
@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_any_length_is_the_direct_sum(
    kernel_device: str, L: int, extra: int, dtype: torch.dtype
) -> None:
    compare(kernel_device, *signals(2, 2, L, max(1, L + extra), dtype))


@pytest.mark.parametrize("K", [1, 2, 127, 128, 129, 257])
def test_short_filters_skip_the_lags_beyond_them(kernel_device: str, K: int) -> None:
    compare(kernel_device, *signals(2, 1, 400, K, BF16))


@pytest.mark.parametrize(
    ("B", "L"), [(1, 700), (3, 300), (17, 150), (64, 260), (70, 260), (130, 40)]
)
@pytest.mark.parametrize("programs", [1, 1000])
def test_any_batch_in_tiles_of_64_or_128_rows_and_parts(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch, B: int, L: int, programs: int
) -> None:
    monkeypatch.setattr(toeplitz, "_PROGRAMS", programs)
    compare(kernel_device, *signals(B, 1, L, L, FP16))


def test_groups_of_channels_make_no_difference(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    v, h, dz = (x.to(kernel_device) for x in signals(3, 5, 140, 140, BF16))
    wanted = toeplitz.toeplitz_forward(v, h), *toeplitz.toeplitz_backward(dz, v, h)
    monkeypatch.setattr(toeplitz, "_GROUP", 2)
    got = toeplitz.toeplitz_forward(v, h), *toeplitz.toeplitz_backward(dz, v, h)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize(("L", "padded"), [(128, 144), (128, 131), (130, 144), (33, 40)])
@pytest.mark.parametrize("skipped", [0, 1])
def test_rows_may_be_strided_and_unaligned(
    kernel_device: str, L: int, padded: int, skipped: int
) -> None:
    v, h, dz = signals(2, 3, L, L, BF16)
    wide = torch.full((2, 4, padded + skipped), torch.nan, dtype=BF16, device=kernel_device)
    rows = wide[:, 1:, skipped : skipped + L]
    rows.copy_(v)
    filters = torch.full((3, L + 2), torch.nan, device=kernel_device)[:, :L].copy_(h)
    compare(kernel_device, rows, filters, dz)


def test_only_rows_in_whole_vectors_are_not_copied(kernel_device: str) -> None:
    x = torch.randn(2, 3, 64, device=kernel_device).to(BF16)
    assert toeplitz._aligned(x) is x
    assert toeplitz._aligned(x[:, :, :32]).data_ptr() == x.data_ptr()
    for cut in (x[:, :, :31], x[:, :, 1:33], x[:, :, ::2]):
        copy = toeplitz._aligned(cut)
        L = cut.shape[2]
        assert copy.stride() == (96, 32, 1)
        assert torch.equal(copy[:, :, :L], cut)
        assert torch.equal(copy[:, :, L:], torch.zeros_like(copy[:, :, L:]))


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_taps_keep_16_bits(kernel_device: str, dtype: torch.dtype) -> None:
    h = torch.tensor([[1 + 2.0**-14, -1.0]], device=kernel_device)  # rounded alone, all cancels
    z = toeplitz.toeplitz_forward(torch.ones(1, 1, 40, dtype=dtype, device=kernel_device), h)
    assert torch.equal(z[0, 0, 1:].float().cpu(), torch.full((39,), 2.0**-14))


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_taps_of_any_size_do_in_float16(kernel_device: str, size: float) -> None:
    v, h, dz = signals(2, 2, 70, 70, FP16)
    h = h * size
    v, dz = ((x * (1e3 if size < 1 else 1e-6)).to(FP16) for x in (v, dz))
    if size < 1:
        want = fft_conv_reference(v.double(), h.double())
        z = toeplitz.toeplitz_forward(v.to(kernel_device), h.to(kernel_device))
        step = 2.0**-24  # of float16 next to zero
        assert float((z.double().cpu() - want).abs().max()) <= 0.51 * step
    else:
        compare(kernel_device, v, h, dz)


def test_a_filter_of_zeros_gives_zeros(kernel_device: str) -> None:
    v = signals(2, 2, 40, 40, BF16)[0].to(kernel_device)
    assert not toeplitz.toeplitz_forward(v, torch.zeros(2, 40, device=kernel_device)).any()


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_filters_of_the_inputs_type_are_taken_as_they_are(
    kernel_device: str, dtype: torch.dtype
) -> None:
    v, h, dz = signals(2, 2, 150, 150, dtype)
    compare(kernel_device, v, h.to(dtype), dz, BOUNDS[dtype])
