from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.ops import soft_decay
from mechbench.ops.soft_decay import kernels
from ops.conftest import relative_error

B, H = 2, 3


def formula(logits: Tensor, bias: Tensor, log_rate: Tensor) -> tuple[Tensor, Tensor]:
    steps = torch.log1p(torch.exp(logits + bias[:, None]))
    return steps, -steps * log_rate.exp().view(-1, *[1] * (logits.ndim - 2))


@pytest.mark.parametrize("used", ["both", "steps", "falls"])
@pytest.mark.parametrize(("L", "K"), [(1, 0), (70, 0), (9, 5), (40, 32)])
def test_is_the_formula_with_its_gradients(
    kernel_device: str, L: int, K: int, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_PROGRAMS", 2)
    more = (K,) if K else ()
    wide = torch.randn(B, L, 4 + H * max(K, 1)).double()[..., 4:]
    logits = (wide.unflatten(-1, (H, K)) if K else wide).transpose(1, 2) - 3
    given = [logits, torch.randn(H, *more).double(), torch.randn(H).double()]
    dy = [torch.randn(B, H, L, *more).double() for _ in range(2)]
    keep = {"both": [0, 1], "steps": [0], "falls": [1]}[used]
    slow = [x.detach().requires_grad_() for x in given]
    fast = [x.detach().to(kernel_device, torch.float32).requires_grad_() for x in given]
    expected, ours = formula(*slow), soft_decay(*fast, used != "falls")
    for i in keep:
        assert ours[i].shape == expected[i].shape
        assert relative_error(ours[i], expected[i]) < 1e-6
    needed = 2 if used == "steps" else 3
    theirs = torch.autograd.grad([expected[i] for i in keep], slow[:needed], [dy[i] for i in keep])
    got = torch.autograd.grad(
        [ours[i] for i in keep],
        fast[:needed],
        [dy[i].to(kernel_device, torch.float32) for i in keep],
    )
    for mine, exact in zip(got, theirs, strict=True):
        assert mine.shape == exact.shape
        assert relative_error(mine, exact) < 2e-6


def test_far_below_zero_and_far_above_nothing_is_lost(kernel_device: str) -> None:
    logits = torch.tensor([-60.0, -17.0, -9.0, 0.0, 19.0, 21.0, 1e4], device=kernel_device)
    zero = torch.zeros(1, device=kernel_device)
    steps, falls = soft_decay(logits[None, None], zero, zero)
    expected = F.softplus(logits.double(), threshold=50)
    torch.testing.assert_close(steps[0, 0].double(), expected, rtol=5e-6, atol=0)  # of exp(-60)
    torch.testing.assert_close(falls, -steps)


def test_half_types_get_gradients_of_their_own(kernel_device: str) -> None:
    logits = torch.randn(B, H, 20, device=kernel_device).bfloat16().requires_grad_()
    bias, log_rate = torch.randn(H, device=kernel_device), torch.zeros(H, device=kernel_device)
    _, falls = soft_decay(logits, bias, log_rate)
    assert falls.dtype == torch.float32
    (grad,) = torch.autograd.grad(falls.sum(), logits)
    assert grad.dtype == torch.bfloat16
    exact = -torch.sigmoid(logits.double() + bias.double()[:, None])
    assert relative_error(grad, exact) < 5e-3
