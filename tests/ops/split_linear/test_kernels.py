from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.ops.split_linear import _Split
from mechbench.ops.split_linear.kernels import joined
from ops.conftest import relative_error

B, L, D = 2, 37, 12


@pytest.mark.parametrize("widths", [(128, 24, 2), (5,), (64, 64, 0, 3, 1), (3, 1, 70, 2, 8, 4)])
def test_slices_of_any_strides_meet(kernel_device: str, widths: tuple[int, ...]) -> None:
    slices = [torch.randn(B, L, w, device=kernel_device) for w in widths]
    slices[-1] = torch.randn(B, widths[-1], L, device=kernel_device).transpose(1, 2)
    slices[0] = torch.randn(B, L, widths[0] + 3, device=kernel_device)[..., 3:]
    width = -(-sum(widths) // 16) * 16
    out = joined(slices, width, torch.float32)
    expected = F.pad(torch.cat(slices, -1), (0, width - sum(widths))).flatten(0, 1)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_a_linear_map(kernel_device: str, dtype: torch.dtype) -> None:
    widths = (32, 3, 0, 2)
    x, weight = torch.randn(B, L, D).bfloat16(), torch.randn(sum(widths), D).bfloat16()
    given = [x.to(dtype), weight.float()]
    low = [t.to(kernel_device).requires_grad_() for t in given]
    exact = [t.double().requires_grad_() for t in (x, weight)]
    slices = _Split.apply(*low, widths, dtype)
    assert [y.dtype for y in slices] == [dtype] * len(widths)
    dy: list[Tensor] = [torch.randn(B, L, w).bfloat16() for w in widths]
    expected = torch.split(F.linear(*exact), widths, -1)
    bound = 1e-5 if dtype == torch.float32 else 5e-3
    for got, want in zip(slices, expected, strict=True):
        assert relative_error(got, want) < bound
    used = [0, 1, 3]  # the gradient of a slice that nothing needs is zero
    ours = torch.autograd.grad(
        [slices[i] for i in used], low, [dy[i].to(kernel_device, dtype) for i in used]
    )
    theirs = torch.autograd.grad([expected[i] for i in used], exact, [dy[i].double() for i in used])
    for got, want, t in zip(ours, theirs, low, strict=True):
        assert (got.dtype, got.shape) == (t.dtype, t.shape)
        assert relative_error(got, want) < bound
