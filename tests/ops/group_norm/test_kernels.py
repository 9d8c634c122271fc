from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.ops import gated_head_norm
from mechbench.ops.group_norm import kernels
from ops.conftest import relative_error


def plain(y: Tensor, gate: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = F.layer_norm(y, y.shape[-1:], eps=1e-5)
    return F.silu(gate) * (y.transpose(1, 2).flatten(2) * weight + bias)


def draw(H: int, L: int, P: int) -> tuple[list[Tensor], nn.GroupNorm, Tensor]:
    norm = nn.GroupNorm(H, H * P)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    y, gate = torch.randn(2, L, H, P).transpose(1, 2), torch.randn(2, L, H * P + 3)[..., 3:]
    return [y + 1, gate], norm, torch.randn(2, L, H * P)


@pytest.mark.parametrize(("H", "L", "P"), [(4, 70, 16), (3, 1, 5), (1, 33, 96)])
def test_is_what_plain_torch_gives(
    kernel_device: str, H: int, L: int, P: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_PROGRAMS", 2)  # several tiles a program
    given, norm, dout = draw(H, L, P)
    slow = [x.detach().double().requires_grad_() for x in (*given, norm.weight, norm.bias)]
    expected = plain(*slow)
    norm = norm.to(kernel_device)
    fast = [x.detach().to(kernel_device).requires_grad_() for x in given]
    out = gated_head_norm(*fast, norm)
    leaves = [*fast, norm.weight, norm.bias]
    ours = [out, *torch.autograd.grad(out, leaves, dout.to(kernel_device))]
    theirs = [expected, *torch.autograd.grad(expected, slow, dout.double())]
    for got, exact in zip(ours, theirs, strict=True):
        assert got.shape == exact.shape
        assert relative_error(got, exact) < 2e-6


def test_half_types_round_once(kernel_device: str) -> None:
    given, norm, dout = draw(3, 20, 24)
    given, dout = [x.bfloat16() for x in given], dout.bfloat16()
    slow = [x.detach().double().requires_grad_() for x in (*given, norm.weight, norm.bias)]
    expected = plain(*slow)
    norm = norm.to(kernel_device)
    fast = [x.to(kernel_device).requires_grad_() for x in given]
    out = gated_head_norm(*fast, norm)
    leaves = [*fast, norm.weight, norm.bias]
    ours = [out, *torch.autograd.grad(out, leaves, dout.to(kernel_device))]
    assert [x.dtype for x in ours] == [torch.bfloat16] * 3 + [torch.float32] * 2
    theirs = [expected, *torch.autograd.grad(expected, slow, dout.double())]
    for got, exact in zip(ours, theirs, strict=True):
        assert relative_error(got, exact) < 5e-3
