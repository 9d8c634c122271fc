from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mechbench.ops import with_earlier


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("L", "D"), [(1, 1), (33, 5), (130, 64), (2, 300)])
def test_is_the_shift_with_its_gradient(kernel_device: str, L: int, D: int, wide: bool) -> None:
    u = torch.randn(2, L, D + 3 * wide)[..., 3 * wide :]
    dy = torch.randn(2, L, 2 * D)
    slow = u.double().requires_grad_()
    expected = torch.cat([slow, F.pad(slow, (0, 0, 1, -1))], -1)
    fast = u.to(kernel_device).detach().requires_grad_()
    out = with_earlier(fast)
    assert torch.equal(out.cpu().double(), expected)
    (theirs,) = torch.autograd.grad(expected, slow, dy.double())
    (ours,) = torch.autograd.grad(out, fast, dy.to(kernel_device))
    torch.testing.assert_close(ours.cpu(), theirs.float())


def test_the_gradient_has_the_type_of_the_input(kernel_device: str) -> None:
    u = torch.randn(2, 9, 8, device=kernel_device).requires_grad_()
    with torch.autocast(kernel_device, torch.bfloat16):
        y = with_earlier(u)
    assert y.dtype == torch.bfloat16
    (du,) = torch.autograd.grad(y, u, torch.ones_like(y))
    assert du.dtype == torch.float32
    assert torch.equal(du[:, :-1], torch.full_like(du[:, 1:], 2))
    assert torch.equal(du[:, -1], torch.ones_like(du[:, -1]))
