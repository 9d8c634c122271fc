from __future__ import annotations

import pytest
import torch
from torch import nn

from mechbench.ops.linear import linear


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (2, 600, 33)])
def test_linear_is_its_formula_with_gradients(device: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(shape[-1], 3).to(device)
    exact = nn.Linear(shape[-1], 3).to(device).double()
    exact.load_state_dict({k: v.double() for k, v in layer.state_dict().items()})
    x = torch.randn(shape, device=device, requires_grad=True)
    z = x.detach().double().requires_grad_()
    y, want = linear(x, layer), exact(z)
    torch.testing.assert_close(y.double(), want, atol=1e-5, rtol=1e-5)
    grad = torch.randn_like(y)
    got = torch.autograd.grad(y, (x, *layer.parameters()), grad)
    expected = torch.autograd.grad(want, (z, *exact.parameters()), grad.double())
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-5)


def test_autocast_gives_bfloat16(device: str) -> None:
    layer = nn.Linear(4, 3).to(device)
    with torch.autocast(device, torch.bfloat16):
        assert linear(torch.randn(2, 4, device=device), layer).dtype == torch.bfloat16
