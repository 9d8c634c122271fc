from __future__ import annotations

import pytest
import torch

from mechbench.ops.sine import sine


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (130, 64), (3, 700, 33)])
def test_sine_is_its_formula_with_gradients(device: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, freq = (3 * torch.randn(s, device=device) for s in (shape, shape[-1:]))
    exact = [t.double().requires_grad_() for t in (x, freq)]
    want = torch.sin(exact[1] * exact[0])
    grad = torch.randn_like(x)
    expected = torch.autograd.grad(want, exact, grad.double())
    got = [t.clone().requires_grad_() for t in (x, freq)]
    y = sine(*got)
    torch.testing.assert_close(y.double(), want, atol=1e-5, rtol=0)
    for ours, theirs in zip(torch.autograd.grad(y, got, grad), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-4)
