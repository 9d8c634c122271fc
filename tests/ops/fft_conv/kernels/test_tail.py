from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv import fft_conv_reference
from mechbench.ops.fft_conv.kernels import tail
from ops.conftest import relative_error

LENGTHS = [(1, 0), (2, 1), (5, 2), (33, 32), (130, 128), (1500, 1492), (2051, 2048)]
B, D = 2, 3


def signals(L: int, K: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(L + K)
    shapes = ((B, D, L), (D, K), (B, D, L), (B, D, L), (D, K))
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)


@pytest.mark.parametrize(("L", "n"), LENGTHS)
@pytest.mark.parametrize("extra", [-40, 7])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_forward_writes_the_last_outputs(
    kernel_device: str, L: int, n: int, extra: int, dtype: torch.dtype, bound: float
) -> None:
    v, h, z, *_ = (x.to(dtype) for x in signals(L, max(1, L + extra)))
    got = z.clone().to(kernel_device)
    tail.tail_forward_(v.to(kernel_device), h.to(kernel_device), got, n)
    want = fft_conv_reference(v.double(), h.double())
    assert relative_error(got[..., n:], want[..., n:]) < bound
    assert torch.equal(got[..., :n].cpu(), z[..., :n])


@pytest.mark.parametrize(("L", "n"), LENGTHS)
@pytest.mark.parametrize("extra", [-40, 7])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_backward_adds_the_last_outputs_gradients(
    kernel_device: str, L: int, n: int, extra: int, dtype: torch.dtype, bound: float
) -> None:
    v, h, dz, dv, dh = (x.to(dtype) for x in signals(L, max(1, L + extra)))
    args = [x.double().requires_grad_() for x in (v, h)]
    y = fft_conv_reference(*args)[..., n:]
    more_v, more_h = torch.autograd.grad(y, args, dz[..., n:].double())
    got = [x.clone().to(kernel_device) for x in (dz, v, h, dv, dh)]
    tail.tail_backward_(*got, n)
    assert relative_error(got[3], dv.double() + more_v) < bound
    assert relative_error(got[4], dh.double() + more_h) < bound
    assert torch.equal(got[0].cpu(), dz)
