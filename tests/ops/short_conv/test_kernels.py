from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.ops import short_conv_reference, short_conv_tokens
from mechbench.ops.short_conv import kernels
from ops.conftest import relative_error


def inputs(B: int, L: int, D: int, K: int) -> list[Tensor]:
    """u, weight, bias and the gradient of y."""
    generator = torch.Generator().manual_seed(1000 * L + 10 * D + K)
    return [torch.randn(s, generator=generator) for s in ((B, L, D), (D, K), (D,), (B, L, D))]


def expected(u: Tensor, weight: Tensor, bias: Tensor, dy: Tensor, silu: bool) -> list[Tensor]:
    """y and the gradients, in float64, from a sum over taps."""
    leaves = [x.double().requires_grad_() for x in (u, weight, bias)]
    y = short_conv_reference(leaves[0].transpose(1, 2), *leaves[1:]).transpose(1, 2)
    y = F.silu(y) if silu else y
    return [y, *torch.autograd.grad(y, leaves, dy.double())]


def computed(args: list[Tensor], dy: Tensor, silu: bool) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in args]
    y = short_conv_tokens(*leaves, silu=silu)
    return [y, *torch.autograd.grad(y, leaves, dy)]


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("K", range(1, 9))
@pytest.mark.parametrize(("B", "L", "D"), [(2, 1, 3), (3, 5, 1), (2, 16, 64), (2, 50, 70)])
def test_values_and_gradients_are_those_of_the_formula(
    kernel_device: str, B: int, L: int, D: int, K: int, silu: bool
) -> None:
    u, weight, bias, dy = inputs(B, L, D, K)
    low = [x.to(kernel_device) for x in (u, weight, bias, dy)]
    got = computed(low[:3], low[3], silu)
    for one, other in zip(got, expected(u, weight, bias, dy, silu), strict=True):
        assert one.shape == other.shape
        assert one.is_contiguous()
        assert relative_error(one, other) < 1e-5
    plain = computed(low[:2], low[3], silu)
    want = expected(u, weight, torch.zeros_like(bias), dy, silu)[:3]
    for one, other in zip(plain, want, strict=True):
        assert relative_error(one, other) < 1e-5


def test_columns_of_a_wider_projection_are_read_in_place(kernel_device: str) -> None:
    u, weight, bias, dy = (x.to(kernel_device) for x in inputs(2, 21, 20, 4))
    whole = torch.full((2, 21, 30), torch.nan, device=kernel_device)
    whole[..., 3:23] = u
    grads = torch.full((2, 21, 25), torch.nan, device=kernel_device)
    grads[..., :20] = dy
    want = computed([u, weight, bias], dy, True)
    for one, other in zip(
        computed([whole[..., 3:23], weight, bias], grads[..., :20], True), want, strict=True
    ):
        assert relative_error(one, other) < 1e-6
        assert one.is_contiguous()


def test_any_other_strides_are_taken(kernel_device: str) -> None:
    u, weight, bias, dy = (x.to(kernel_device) for x in inputs(2, 21, 20, 4))
    far = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (u, dy)]
    taps = weight.T.contiguous().T
    want = computed([u, weight, bias], dy, True)
    for one, other in zip(computed([far[0], taps, bias], far[1], True), want, strict=True):
        assert relative_error(one, other) < 1e-6
    total = torch.ones((), device=kernel_device).expand(2, 21, 20)  # as .sum() leaves it
    leaf = u.detach().requires_grad_()
    (one,) = torch.autograd.grad(short_conv_tokens(leaf, weight).sum(), leaf)
    (other,) = torch.autograd.grad(short_conv_tokens(leaf, weight), leaf, total.contiguous())
    assert relative_error(one, other) < 1e-6


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_half_types_round_once(kernel_device: str, silu: bool, wide: bool) -> None:
    u, weight, bias, dy = (x.bfloat16() for x in inputs(2, 40, 24, 4))
    kind = torch.float32 if wide else torch.bfloat16
    given = [u, weight.to(kind), bias.to(kind)]
    got = computed([x.to(kernel_device) for x in given], dy.to(kernel_device), silu)
    kinds = [torch.bfloat16, torch.bfloat16, kind, kind]
    want = expected(u, weight, bias, dy, silu)
    for one, other, dtype in zip(got, want, kinds, strict=True):
        assert one.dtype == dtype
        off = (one.cpu().double() - other).abs() / other.abs().clamp_min(1e-2)
        assert off.max() <= (2**-7 if dtype == torch.bfloat16 else 1e-3)  # truncated or rounded


@pytest.mark.parametrize("most", [1, 40])
def test_runs_of_any_length_do(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    u, weight, bias, dy = inputs(3, 600, 5, 3)
    monkeypatch.setattr(kernels, "_PROGRAMS", most)
    low = [x.to(kernel_device) for x in (u, weight, bias, dy)]
    got = computed(low[:3], low[3], True)
    for one, other in zip(got, expected(u, weight, bias, dy, True), strict=True):
        assert relative_error(one, other) < 1e-5


def test_autocast_decides_the_dtype_of_the_result(kernel_device: str) -> None:
    u, weight, bias, _ = (x.to(kernel_device) for x in inputs(1, 9, 8, 4))
    exact = short_conv_tokens(u, weight, bias)
    with torch.autocast(kernel_device, torch.bfloat16):
        leaf = u.detach().requires_grad_()
        y = short_conv_tokens(leaf, weight, bias)
    assert exact.dtype == torch.float32
    assert y.dtype == torch.bfloat16
    assert relative_error(y, exact) < 2**-7
    (du,) = torch.autograd.grad(y.sum(), leaf)
    assert du.dtype == torch.float32


def test_more_taps_than_the_kernels_take_are_left_to_torch(kernel_device: str) -> None:
    u, weight, bias, dy = inputs(2, 20, 6, 9)
    low = [x.to(kernel_device) for x in (u, weight, bias, dy)]
    for one, other in zip(
        computed(low[:3], low[3], True), expected(u, weight, bias, dy, True), strict=True
    ):
        assert relative_error(one, other) < 2e-3  # in TF32 on a GPU
