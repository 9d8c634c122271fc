from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mechbench.ops.add_norm import kernels as kernel
from ops.conftest import relative_error

ROWS = [1, 2, 5, 33, 130, 1500]
EPS = 1e-5


@pytest.mark.parametrize("N", ROWS)
@pytest.mark.parametrize("D", [2, 48, 100])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
def test_forward_and_backward_are_the_norm_of_the_sum(
    kernel_device: str, N: int, D: int, added: bool, low: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(N * 100 + D)
    shapes = ((N, D), (N, D), (D,), (D,), (N, D), (N, D))
    args = [torch.randn(s, generator=generator).to(low).double() for s in shapes]
    x, delta, weight, bias, dtotal, dout = args
    exact = [t.requires_grad_() for t in (x, delta * added, weight, bias)]
    want = exact[0] + exact[1], F.layer_norm(exact[0] + exact[1], (D,), *exact[2:], EPS)
    wanted = torch.autograd.grad(want, exact, (dtotal, dout))

    # The residual stream stays in float32; what is added and the norm may be in half precision.
    x, delta, weight, bias, dtotal, dout = (
        t.detach().to(kernel_device, torch.float32) for t in args
    )
    delta, dout = delta.to(low), dout.to(low)
    bound = 1e-5 if low == torch.float32 else 1e-2
    total, out = kernel.forward(x, delta if added else None, weight, bias, EPS, low)
    assert total.dtype == torch.float32
    assert out.dtype == low
    assert relative_error(total, want[0]) < 1e-6
    assert relative_error(out, want[1]) < bound
    grads = kernel.backward(total, weight, dout, dtotal, low if added else None, EPS)
    assert (grads[1] is not None) == added
    for got, expected in zip(grads, wanted, strict=True):
        if got is not None:
            assert got.shape == expected.shape
            assert relative_error(got, expected) < bound


def test_more_tiles_than_programs(kernel_device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    total, dout = torch.randn(2, 700, 48, device=kernel_device)
    weight = torch.randn(48, device=kernel_device)
    once = kernel.backward(total, weight, dout, None, None, EPS)
    monkeypatch.setattr(kernel, "_PROGRAMS", 2)
    again = kernel.backward(total, weight, dout, None, None, EPS)
    for a, b in zip((once[0], *once[2:]), (again[0], *again[2:]), strict=True):
        assert relative_error(a, b) < 1e-6
