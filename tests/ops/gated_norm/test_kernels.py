from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.ops import gated_norm, heads_norm, norm_gated
from mechbench.ops.gated_norm import kernels
from ops.conftest import relative_error


def plain(y: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
    y = F.rms_norm(y, y.shape[-1:], weight, 1e-5)
    return y.transpose(1, 2).flatten(2) * F.silu(gate)


def with_gradients(y: Tensor, inputs: list[Tensor], dout: Tensor) -> list[Tensor]:
    return [y, *torch.autograd.grad(y, inputs, dout)]


@pytest.mark.parametrize("view", ["own", "of a wider tensor", "of longer sequences"])
@pytest.mark.parametrize(("H", "L", "P"), [(4, 70, 16), (3, 1, 5), (1, 33, 96)])
def test_is_what_plain_torch_gives(
    kernel_device: str, H: int, L: int, P: int, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_PROGRAMS", 2)  # several tiles a program
    norm = nn.RMSNorm(P, eps=1e-5)
    nn.init.normal_(norm.weight)
    y, dout = torch.randn(2, L, H, P).double().transpose(1, 2), torch.randn(2, L, H * P).double()
    gate = torch.randn(2, L, H * P).double()
    if view == "of a wider tensor":
        gate = torch.randn(2, L, 3 + H * P).double()[..., 3:]
    elif view == "of longer sequences":
        gate = torch.randn(2, 1 + L, H * P).double()[:, 1:]
    slow = [x.detach().requires_grad_() for x in (y, gate, norm.weight.double())]
    norm = norm.to(kernel_device)
    fast = [x.detach().to(kernel_device, torch.float32).requires_grad_() for x in (y, gate)]
    expected = with_gradients(plain(*slow), slow, dout)
    ours = with_gradients(
        gated_norm(*fast, norm), [*fast, norm.weight], dout.to(kernel_device, torch.float32)
    )
    for got, exact in zip(ours, expected, strict=True):
        assert got.shape == exact.shape
        assert relative_error(got, exact) < 2e-6


def test_half_types_round_once(kernel_device: str) -> None:
    norm = nn.RMSNorm(24, eps=1e-5).to(kernel_device)
    y, gate, dout = (torch.randn(*s).bfloat16() for s in ((2, 3, 9, 24), (2, 9, 72), (2, 9, 72)))
    slow = [x.double().requires_grad_() for x in (y, gate)]
    weight = torch.ones(24).double().requires_grad_()
    fast = [x.to(kernel_device).requires_grad_() for x in (y, gate)]
    expected = with_gradients(plain(*slow, weight), [*slow, weight], dout.double())
    out = gated_norm(*fast, norm)
    ours = with_gradients(out, [*fast, norm.weight], dout.to(kernel_device))
    assert [x.dtype for x in ours] == [torch.bfloat16] * 3 + [torch.float32]
    for got, exact in zip(ours, expected, strict=True):
        assert relative_error(got, exact) < 5e-3


def test_gates_are_copied_only_without_one_stride_for_all_tokens() -> None:
    x = torch.zeros(2, 8, 12)
    for view in (x, x[..., 4:], x[:1, :5], x[:, ::2]):
        assert kernels.tokens(view) is view
    assert kernels.tokens(x[:, :5]).is_contiguous()


@pytest.mark.parametrize("act", ["silu", "sigmoid", None])
def test_norms_of_heads_have_the_gate_asked_for(kernel_device: str, act: Any) -> None:
    norm = nn.RMSNorm(12, eps=1e-5)
    nn.init.normal_(norm.weight)
    y, dout = torch.randn(2, 9, 3, 12).double().transpose(1, 2), torch.randn(2, 9, 36).double()
    gate = torch.randn(2, 9, 36).double()
    slow = [x.detach().requires_grad_() for x in (y, norm.weight.double(), gate)]
    factor = {"silu": F.silu, "sigmoid": torch.sigmoid, None: torch.ones_like}[act](slow[2])
    unit = F.rms_norm(slow[0], (12,), slow[1], 1e-5).transpose(1, 2).flatten(2)
    n = 2 if act is None else 3
    expected = with_gradients(unit * factor, slow[:n], dout)
    norm = norm.to(kernel_device)
    fast = [x.detach().to(kernel_device, torch.float32).requires_grad_() for x in (y, gate)]
    given = (None,) if act is None else (fast[1], act)
    out = heads_norm(fast[0], norm, torch.float32, *given)
    ours = with_gradients(
        out, [fast[0], norm.weight, fast[1]][:n], dout.to(kernel_device, torch.float32)
    )
    for got, exact in zip(ours, expected, strict=True):
        assert got.shape == exact.shape
        assert relative_error(got, exact) < 2e-6


@pytest.mark.parametrize(("L", "E"), [(70, 64), (1, 5), (33, 200)])
def test_a_norm_behind_its_gate_is_what_plain_torch_gives(
    kernel_device: str, L: int, E: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_PROGRAMS", 2)
    norm = nn.RMSNorm(E, eps=1e-5)
    nn.init.normal_(norm.weight)
    y, gate, dout = (torch.randn(2, L, n).double() for n in (E, E + 16, E))
    slow = [x.detach().requires_grad_() for x in (y, gate[..., :E], norm.weight.double())]
    expected = with_gradients(
        F.rms_norm(slow[0] * F.silu(slow[1]), (E,), slow[2], 1e-5), slow, dout
    )
    norm = norm.to(kernel_device)
    low = [x.to(kernel_device, torch.float32) for x in (y, gate)]
    fast = [x.requires_grad_() for x in (low[0], low[1][..., :E])]
    ours = with_gradients(
        norm_gated(*fast, norm), [*fast, norm.weight], dout.to(kernel_device, torch.float32)
    )
    for got, exact in zip(ours, expected, strict=True):
        assert got.shape == exact.shape
        assert relative_error(got, exact) < 2e-6
