from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mechbench.ops.add_norm import _AddNorm, add_norm
from ops.conftest import kernel_device, relative_error  # noqa: F401

D = 6


def arguments(rows: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows)
    shapes = ((2, rows, D), (2, rows, D), (D,), (D,), (2, rows, D), (2, rows, D))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def layer(weight: Tensor, bias: Tensor) -> nn.LayerNorm:
    norm = nn.LayerNorm(D, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        norm.weight.copy_(weight)
        norm.bias.copy_(bias)
    return norm


def reference(x: Tensor, delta: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    total = x + delta
    centred = total - total.mean(-1, keepdim=True)
    return total, centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize("rows", [1, 5, 130])
@pytest.mark.parametrize("added", [True, False])
def test_equals_the_formula_in_float64(device: str, rows: int, added: bool) -> None:
    x, delta, weight, bias, *grads = arguments(rows)
    exact = [t.requires_grad_() for t in (x, delta * added, weight, bias)]
    low = [t.detach().to(device, torch.float32).requires_grad_() for t in exact[:2]]
    norm = layer(*(t.detach().to(device, torch.float32) for t in (weight, bias)))
    ours = add_norm(low[0], low[1] if added else None, norm)
    want = reference(*exact)
    for a, b in zip(ours, want, strict=True):
        assert relative_error(a, b) < 1e-5
    torch.autograd.backward(ours, [g.to(ours[0]) for g in grads])
    torch.autograd.backward(want, grads)
    wanted = [t.grad for t in exact]
    got = [low[0].grad, low[1].grad if added else wanted[1], norm.weight.grad, norm.bias.grad]
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("added", [True, False])
def test_kernel_gives_gradients_whichever_output_is_used(
    kernel_device: str,  # noqa: F811
    used: tuple[bool, bool],
    added: bool,
) -> None:
    x, delta, weight, bias, *grads = arguments(5)
    exact = [t.requires_grad_() for t in (x, delta * added, weight, bias)]
    low = [t.detach().to(kernel_device, torch.float32).requires_grad_() for t in exact]
    given = [low[0], low[1] if added else None, *low[2:]]
    ours = _AddNorm.apply(*given, 1e-5, torch.float32)
    want = reference(*exact)
    for outputs in (ours, want):
        pairs = [(o, g.to(o)) for o, g, use in zip(outputs, grads, used, strict=True) if use]
        torch.autograd.backward(*zip(*pairs, strict=True))
    for i, (a, b) in enumerate(zip(low, exact, strict=True)):
        if b.grad is None or (i == 1 and not added):
            assert a.grad is None
        else:
            assert relative_error(a.grad, b.grad) < 1e-5
