from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv import fft_conv_reference
from mechbench.ops.fft_conv.kernels import twist
from ops.conftest import relative_error

LENGTHS = [1, 2, 5, 33, 130, 1500]


def signals(L: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(L)
    shapes = ((2, 3, L), (3, L), (2, 3, L))
    v, h, dz = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return v, h, dz


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("extra", [0, 3])
def test_spectrum_is_that_of_the_twisted_signal(kernel_device: str, L: int, extra: int) -> None:
    v, n = signals(L)[0], L + extra
    angle = torch.arange(L, dtype=torch.float64) * math.pi / (2 * n)
    want = torch.fft.fft(v * torch.polar(torch.ones_like(angle), angle), n)
    got = twist.twisted_fft(v.to(kernel_device, torch.float32), n)
    assert got.shape == (2, 3, n)
    real, expected = torch.view_as_real(got), torch.view_as_real(want)
    assert relative_error(real, expected) < 1e-5


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("extra", [0, 3])
def test_product_is_the_causal_convolution(kernel_device: str, L: int, extra: int) -> None:
    v, h, _ = signals(L)
    low_v, low_h = (x.to(kernel_device, torch.float32) for x in (v, h))
    z = twist.twisted_fft(low_v, L + extra)
    twist.multiply_(z, twist.twisted_fft(low_h[None], L + extra)[0])
    out = torch.full_like(low_v, torch.nan)
    twist.untwisted_ifft(z, out)
    assert relative_error(out, fft_conv_reference(v, h)) < 1e-5


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("extra", [0, 3])
def test_correlation_is_the_convolutions_gradient(kernel_device: str, L: int, extra: int) -> None:
    v, h, dz = signals(L)
    exact = [v.requires_grad_(), h.requires_grad_()]
    want_v, want_h = torch.autograd.grad(fft_conv_reference(*exact), exact, dz)
    low = [x.detach().to(kernel_device, torch.float32) for x in (dz, v, h[None])]
    spectrum, v_spectrum, h_spectrum = (twist.twisted_fft(x, L + extra) for x in low)
    shared = twist.correlate_(spectrum, v_spectrum, h_spectrum[0])
    dv, dh = torch.full_like(low[1], torch.nan), torch.full_like(low[2], torch.nan)
    twist.untwisted_ifft(spectrum, dv)
    twist.untwisted_ifft(shared[None], dh)
    assert relative_error(dv, want_v) < 1e-5
    assert relative_error(dh[0], want_h) < 1e-5


def test_rows_may_be_strided(kernel_device: str) -> None:
    v = signals(33)[0].to(kernel_device, torch.float32)
    spectrum = twist.twisted_fft(v, 33)
    wide = torch.zeros(2, 5, 40, device=kernel_device)
    wide[:, 1:4, :33] = v
    assert torch.equal(twist.twisted_fft(wide[:, 1:4, :33], 33), spectrum)
    out = torch.zeros_like(wide)
    twist.untwisted_ifft(spectrum, out[:, 1:4, :33])
    assert relative_error(out, wide) < 1e-5
