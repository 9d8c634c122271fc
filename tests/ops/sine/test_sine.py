from __future__ import annotations

import pytest
import torch

from mechbench.ops.sine import sine
from ops.sine.layer import assert_a_layer_is_its_formula


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


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (130, 5, 64), (700, 64, 64), (33, 3, 65)])
@pytest.mark.parametrize("wants_dx", [True, False])
def test_a_layer_is_its_formula_with_gradients(
    device: str, shape: tuple[int, int, int], wants_dx: bool
) -> None:
    assert_a_layer_is_its_formula(device, shape, wants_dx)
