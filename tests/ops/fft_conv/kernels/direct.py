"""What kernels of the long convolution are held to: transforms in float64."""

from __future__ import annotations

from types import ModuleType

import torch

from mechbench.ops.fft_conv import fft_conv
from ops.conftest import relative_error

# Twice what rounding the result once gives at most; float32: what was measured is below 1e-6.
BOUNDS = {torch.float32: 3e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}


def assert_convolves(
    kernels: ModuleType,
    n: int,
    L: int,
    K: int,
    dtype: torch.dtype,
) -> None:
    """Compare with float64 for inputs in rows that are wider than they are long."""
    v, dz = (torch.randn(4, 3, L + 3, device="cuda").to(dtype)[..., :L] for _ in range(2))
    h = torch.randn(3, K, device="cuda")
    exact = [x.double().requires_grad_() for x in (v, h)]
    want = fft_conv(*exact, backend="torch")
    wanted = torch.autograd.grad(want, exact, dz.double())
    z, kept = kernels.forward(v, h, n)
    dv, dh = kernels.backward(dz, v, h, n, kept)
    assert z.dtype == dv.dtype == dtype
    assert z.is_contiguous()
    assert relative_error(z, want) < BOUNDS[dtype]
    assert relative_error(dv, wanted[0]) < BOUNDS[dtype]
    assert relative_error(dh, wanted[1]) < BOUNDS[torch.float32]
    assert not dh[:, L:].any()
