from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mechbench.ops.cross_entropy import kernels as kernel

IGNORE = -100


@pytest.mark.parametrize("N", [1, 2, 5, 33, 130, 1500])
@pytest.mark.parametrize("V", [1, 2, 65, 300])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_loss_gradient_and_counts(
    kernel_device: str, N: int, V: int, dtype: torch.dtype, bound: float
) -> None:
    generator = torch.Generator().manual_seed(N * 10000 + V)
    logits = (3 * torch.randn(N, V, generator=generator)).to(dtype)
    targets = torch.randint(V, (N,), generator=generator)
    targets[::4] = logits[::4].argmax(-1)
    targets[1::3] = IGNORE
    exact = logits.double().requires_grad_()
    want = F.cross_entropy(exact, targets, ignore_index=IGNORE, reduction="sum")
    (want_grad,) = torch.autograd.grad(want, exact)
    loss, grad, counts = kernel.loss_and_gradient(
        logits.to(kernel_device), targets.to(kernel_device), IGNORE
    )
    assert grad.dtype == dtype
    torch.testing.assert_close(loss.double().cpu(), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.double().cpu(), want_grad, rtol=bound, atol=1e-6)
    scored = targets != IGNORE
    best = logits.gather(1, targets.clamp_min(0)[:, None])[:, 0] == logits.max(-1).values
    assert int(counts[1]) == int(scored.sum())
    if dtype == torch.float32:  # half-precision logits tie
        assert int(counts[0]) == int((scored & best).sum())


def test_of_equal_logits_the_first_counts(kernel_device: str) -> None:
    logits = torch.zeros(3, 5, device=kernel_device)
    targets = torch.tensor([0, 1, IGNORE], device=kernel_device)
    assert kernel.loss_and_gradient(logits, targets, IGNORE)[2].tolist() == [1, 2]


def test_large_logits_do_not_overflow(kernel_device: str) -> None:
    logits = torch.tensor([[1000.0, 0.0], [-1000.0, 0.0]], device=kernel_device)
    targets = torch.tensor([0, 0], device=kernel_device)
    loss, grad, _ = kernel.loss_and_gradient(logits, targets, IGNORE)
    assert loss.item() == 1000
    assert grad.tolist() == [[0, 0], [-1, 1]]
