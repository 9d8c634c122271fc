from __future__ import annotations

import torch
import triton
import triton.language as tl

from mechbench.ops.kernels.parts import parts, product_of_parts
from ops.conftest import relative_error

N = 32


@triton.jit
def _kernel(x, y, high, low, product, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    a, b = parts(tl.load(x + at))
    tl.store(high + at, a)
    tl.store(low + at, b)
    c, d = parts(tl.load(y + at))
    tl.store(product + at, product_of_parts(a, b, c, d))


def test_parts_add_up_and_so_do_their_products(kernel_device: str) -> None:
    x, y = torch.randn(2, N, N, generator=torch.Generator().manual_seed(0))
    x = x * torch.logspace(-20, 10, N)  # of any size
    x[0, 0] = 0.0
    high, low, product = (torch.empty(N, N, device=kernel_device) for _ in range(3))
    _kernel[(1,)](x.to(kernel_device), y.to(kernel_device), high, low, product, N=N)
    high, low = high.cpu(), low.cpu()
    assert torch.equal(high + low, x)
    assert (high.view(torch.int32) & 0x1FFF == 0).all()  # ten of 23 bits are left
    assert (low.abs() <= x.abs() / 2**11).all()
    assert relative_error(product, x.double() @ y.double()) < 2e-6
