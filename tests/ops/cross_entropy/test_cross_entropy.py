from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.cross_entropy import _CrossEntropy, cross_entropy
from ops.conftest import kernel_device, relative_error  # noqa: F401

IGNORE = -100


def arguments(N: int, V: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(N * 1000 + V)
    logits = 3 * torch.randn(N, V, generator=generator, dtype=torch.float64)
    targets = torch.randint(V, (N,), generator=generator)
    targets[1::3] = IGNORE
    targets[::4] = logits[::4].argmax(-1)
    return logits, targets


def reference(logits: Tensor, targets: Tensor) -> tuple[Tensor, list[int]]:
    scored = targets != IGNORE
    rows, wanted = logits[scored], targets[scored]
    loss = (rows.exp().sum(-1).log() - rows.gather(1, wanted[:, None])[:, 0]).sum()
    return loss, [int((rows.argmax(-1) == wanted).sum()), int(scored.sum())]


@pytest.mark.parametrize("N", [1, 2, 5, 33, 130])
@pytest.mark.parametrize("V", [2, 7, 65])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_equals_the_formula_in_float64(
    device: str, N: int, V: int, dtype: torch.dtype, bound: float
) -> None:
    logits, targets = arguments(N, V)
    exact = logits.to(dtype).double().requires_grad_()
    low = logits.to(device, dtype).requires_grad_()
    loss, counts = cross_entropy(low, targets.to(device), IGNORE)
    want, wanted_counts = reference(exact, targets)
    assert loss.dtype == torch.float32
    assert counts.dtype == torch.int64
    torch.testing.assert_close(loss.double().cpu(), want, rtol=1e-5, atol=1e-6)
    if dtype == torch.float32:  # rounded logits tie
        assert counts.tolist() == wanted_counts
    (got,) = torch.autograd.grad(loss / 3, low)
    (wanted,) = torch.autograd.grad(want / 3, exact)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double().cpu(), wanted, rtol=bound, atol=1e-6)
    assert not got[(targets == IGNORE).to(device)].any()


def test_nothing_scored_is_no_loss_and_no_gradient(device: str) -> None:
    logits = torch.randn(3, 4, device=device).requires_grad_()
    targets = torch.full((3,), IGNORE, device=device)
    loss, counts = cross_entropy(logits, targets, IGNORE)
    loss.backward()
    assert loss.item() == 0
    assert counts.tolist() == [0, 0]
    assert not logits.grad.any()


def test_of_equal_logits_the_first_counts(device: str) -> None:
    logits = torch.zeros(2, 5, device=device)
    _, counts = cross_entropy(logits, torch.tensor([0, 1], device=device), IGNORE)
    assert counts.tolist() == [1, 2]


def test_kernel_scales_its_gradient_by_the_losses(kernel_device: str) -> None:  # noqa: F811
    logits, targets = arguments(33, 7)
    exact = logits.requires_grad_()
    low = logits.detach().to(kernel_device, torch.float32).requires_grad_()
    loss, counts = _CrossEntropy.apply(low, targets.to(kernel_device), IGNORE)
    want, wanted_counts = reference(exact, targets)
    assert counts.tolist() == wanted_counts
    (2.5 * loss).backward()
    (2.5 * want).backward()
    assert relative_error(low.grad, exact.grad) < 1e-5
