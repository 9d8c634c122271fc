from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.fft_conv.core import gated_conv
from mechbench.ops.fft_conv.kernels import gates
from ops.conftest import relative_error

B = 2


class Halved:
    """In place of a convolution: h_0 / 2 times v."""

    ANY_SEQLEN = True
    TAILS = False

    def core_forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert v.is_contiguous()
        return (v * h[:, :1] / 2).to(v.dtype), ()

    def core_backward(
        self, dz: Tensor, v: Tensor, h: Tensor, kept: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        assert dz.is_contiguous()
        dh = torch.zeros_like(h)
        dh[:, 0] = (dz.float() * v.float()).sum((0, 2)) / 2
        return (dz * h[:, :1] / 2).to(dz.dtype), dh


def formula(
    u: Tensor, h: Tensor, skip: Tensor | None, pre: Tensor | None, post: Tensor | None
) -> Tensor:
    v = u if pre is None else u * pre
    y = v * h[:, :1] / 2 if skip is None else v * (h[:, :1] / 2 + skip[:, None])
    return y if post is None else y * post


@pytest.mark.parametrize("tokens_first", [False, True])
@pytest.mark.parametrize("without", [(), (2,), (3,), (4,), (3, 4), (2, 3), (2, 4)])
@pytest.mark.parametrize(("D", "L"), [(3, 1), (40, 70)])
def test_gates_and_skip_are_the_formula_with_its_gradients(
    kernel_device: str, D: int, L: int, without: tuple[int, ...], tokens_first: bool
) -> None:
    def signal() -> Tensor:
        if tokens_first:  # a slice of what a linear map gives
            return torch.randn(B, L, 2 * D)[..., D:].transpose(1, 2)
        return torch.randn(B, D, L)

    args = [signal(), torch.randn(D, L), torch.randn(D), signal(), signal()]
    given = [None if i in without else x for i, x in enumerate(args)]
    slow = [None if x is None else x.detach().double().requires_grad_() for x in given]
    fast = [None if x is None else x.detach().to(kernel_device).requires_grad_() for x in given]
    dy = torch.randn(B, D, L)
    out, expected = gated_conv(Halved(), *fast), formula(*slow)
    assert out.transpose(1, 2).is_contiguous()
    ours = torch.autograd.grad(out, [x for x in fast if x is not None], dy.to(kernel_device))
    theirs = torch.autograd.grad(expected, [x for x in slow if x is not None], dy.double())
    assert relative_error(out, expected) < 1e-6
    for got, exact in zip(ours, theirs, strict=True):
        assert got.shape == exact.shape
        assert relative_error(got, exact) < 2e-6


def test_half_types_keep_theirs(kernel_device: str) -> None:
    u, pre, post = (torch.randn(B, 5, 40, device=kernel_device).bfloat16() for _ in range(3))
    skip = torch.randn(5, device=kernel_device)
    leaves = [x.requires_grad_() for x in (u, skip, pre, post)]
    h = torch.zeros(5, 40, device=kernel_device)
    out = gated_conv(Halved(), u, h, skip, pre, post)
    grads = torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert [x.dtype for x in (out, *grads)] == [x.dtype for x in (u, u, skip, pre, post)]
    exact = skip.double()[:, None] * u.double() * pre.double() * post.double()
    assert relative_error(out, exact) < 8e-3


def test_gradients_lie_as_what_they_are_of() -> None:
    first = torch.zeros(2, 4, 6).transpose(1, 2)
    assert gates._like(first).stride() == first.stride()
    assert gates._like(first.contiguous()).is_contiguous()
