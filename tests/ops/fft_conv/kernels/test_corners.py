from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv.kernels.corners import (
    add_late_gradients,
    add_late_outputs,
    corner_taps,
)
from ops.conftest import kernel_device, relative_error  # noqa: F401

N = 20  # of the transforms


def matrix(h: Tensor, L: int, below: int | None) -> Tensor:
    """Return (D, L, L) of a convolution; with `below`, of inputs and lags below that alone."""
    lag = torch.arange(L)[:, None] - torch.arange(L)
    taps = torch.cat([h, h.new_zeros(len(h), L)], 1)[:, :L]
    counts = lag >= 0
    if below is not None:
        counts &= (lag < below) & (torch.arange(L) < below)
    return torch.where(counts, taps[:, lag.clamp_min(0)], 0)


@pytest.mark.parametrize(
    ("tail", "missing", "dtype"),  # missing: taps
    [
        (1, 0, torch.float32),
        (3, -3, torch.float32),
        (3, 2, torch.float32),
        (8, 0, torch.float32),
        (2, 0, torch.bfloat16),
    ],
)
def test_what_transforms_leave_out_is_added(
    kernel_device: str,  # noqa: F811
    tail: int,
    missing: int,
    dtype: torch.dtype,
) -> None:
    B, D, L = 34, 3, N + tail
    K = L - missing
    torch.manual_seed(tail)
    wide = torch.randn(2, B, D, L + 3, dtype=torch.float64).to(dtype)
    v, dz = (x[..., :L].double() for x in wide)
    v.requires_grad_()
    h = torch.randn(D, K, dtype=torch.float64).float().double().requires_grad_()
    whole, part = (torch.einsum("dts,bds->bdt", matrix(h, L, n), v) for n in (None, N))
    wanted = torch.autograd.grad(whole, (v, h), dz, retain_graph=True)
    started = torch.autograd.grad(part, (v, h), dz)

    rows, grads = (x[..., :L] for x in wide.to(kernel_device))
    z, dv = (x.detach().to(kernel_device, dtype).contiguous() for x in (part, started[0]))
    taps, dh = (x.detach().float().to(kernel_device) for x in (h, started[1]))
    dh[:, N:L] = 7.0  # whatever lay in memory
    dv[..., N:] = 7.0
    taps = corner_taps(taps, N, tail)
    add_late_outputs(rows, rows[..., N:], taps, z[..., N:])
    add_late_gradients(grads[..., N:], rows, rows[..., N:], taps, dv, dh, N)
    bound = 2e-2 if dtype == torch.bfloat16 else 1e-6
    assert relative_error(z, whole) < bound
    assert relative_error(dv, wanted[0]) < bound
    assert relative_error(dh, wanted[1]) < 1e-5
