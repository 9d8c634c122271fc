from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops.hyena_mix import kernels as gate
from mechbench.ops.short_conv import short_conv_reference
from ops.conftest import relative_error

B, D = 2, 3
LENGTHS = [1, 2, 5, 33, 130, 1500]


def padded(x: Tensor, padding: int, channels_first: bool = False) -> Tensor:
    if channels_first:
        return padded(x.transpose(0, 1), padding).transpose(0, 1)
    out = x.new_full((*x.shape[:-1], x.shape[-1] + padding), torch.nan)[..., : x.shape[-1]]
    return out.copy_(x)


def inputs(L: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(L)
    shapes = ((B, 3 * D, L), (3 * D, 3), (3 * D,), (3 * D,), (D,), (B, D, L))
    *args, dy = (torch.randn(s, generator=generator).to(dtype).double() for s in shapes)
    return args, dy


def mirror(w: Tensor) -> Tensor:
    """Stands for the convolution: linear, and its own adjoint."""
    return w.flip(-1)


def reference(p: Tensor, taps: Tensor, bias: Tensor, shift: Tensor, skip: Tensor) -> list[Tensor]:
    v, x1, x2 = short_conv_reference(p + shift[:, None], taps, bias).chunk(3, 1)
    w = x1 * v
    return [w, x2, x2 * (mirror(w) + skip[:, None] * w)]


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize(
    ("padding", "channels_first"), [(0, False), (7, False), (0, True), (7, True)]
)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_four_passes_are_the_formula_and_its_gradient(
    kernel_device: str, L: int, padding: int, channels_first: bool, dtype: torch.dtype, bound: float
) -> None:
    exact, exact_dy = inputs(L, dtype)
    for x in exact:
        x.requires_grad_()
    want_w, want_x2, want_y = reference(*exact)
    wanted = torch.autograd.grad(want_y, exact, exact_dy)

    low = [x.detach().to(kernel_device, dtype) for x in (*exact, exact_dy)]
    p, dy = padded(low[0], padding, channels_first), padded(low[-1], padding)
    small, skip = low[1:4], low[4]
    w = gate.gate_forward(p, *small)
    z = mirror(w).contiguous()
    y = gate.finish_forward(p, *small, z, w, skip)
    assert y.dtype == dtype
    assert (y.stride(0) < y.stride(1)) is (p.stride(0) < p.stride(1))
    for got, want in ((w, want_w), (y, want_y)):
        assert relative_error(got, want) < bound

    dz = gate.finish_backward(p, *small, dy)
    assert relative_error(dz, exact_dy * want_x2) < bound
    grads = gate.gate_backward(p, *small, skip, dy, z, mirror(dz).contiguous())
    assert grads[0].dtype == dtype
    for got, want in zip(grads, wanted, strict=True):
        assert got.shape == want.shape
        assert relative_error(got, want) < bound


def test_uneven_rows_are_refused(kernel_device: str) -> None:
    args, _ = inputs(5, torch.float32)
    p, taps, bias, shift, _ = (x.to(kernel_device, torch.float32) for x in args)
    with pytest.raises(AssertionError, match="contiguous"):
        gate.gate_forward(p.transpose(1, 2).contiguous().transpose(1, 2), taps, bias, shift)
