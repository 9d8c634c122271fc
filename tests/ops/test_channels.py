from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mechbench.ops import channels
from mechbench.ops.channels import from_channels, to_channels
from ops.conftest import relative_error

D, E = 4, 6


def to_reference(u: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("bld,ed->bel", u, weight)


def from_reference(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("bdl,ed->ble", y, weight) + bias


def inputs(name: str, B: int, L: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 * B + L)
    shapes: tuple[tuple[int, ...], ...] = ((B, L, D), (E, D))
    if name == "from":
        shapes = ((B, D, L), (E, D), (E,))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


FUNCTIONS = {"to": (to_channels, to_reference), "from": (from_channels, from_reference)}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("B", [1, 3, 9])
@pytest.mark.parametrize("L", [1, 2, 5, 33, 130])
def test_equals_the_sum_in_float64(device: str, name: str, B: int, L: int) -> None:
    ours, reference = FUNCTIONS[name]
    exact = [x.requires_grad_() for x in inputs(name, B, L)]
    low = [x.detach().to(device, torch.float32).requires_grad_() for x in exact]
    out, want = ours(*low), reference(*exact)
    assert out.shape == want.shape
    assert relative_error(out, want) < 1e-5
    grad = torch.randn(want.shape, dtype=torch.float64)
    got = torch.autograd.grad(out, low, grad.to(out))
    for a, b in zip(got, torch.autograd.grad(want, exact, grad), strict=True):
        assert a.shape == b.shape
        assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_gives_its_own_type_and_gradients_in_the_weights(device: str, name: str) -> None:
    ours, reference = FUNCTIONS[name]
    exact = inputs(name, 2, 33)
    low = [x.to(device, torch.float32).requires_grad_() for x in exact]
    with torch.autocast(device, dtype=torch.bfloat16):
        out = ours(*low)
    assert out.dtype == torch.bfloat16
    assert relative_error(out, reference(*exact)) < 2e-2
    out.float().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.float32 for x in low)


# What CUDA runs, on the CPU: batches one by one, and all at once from nine on.
@pytest.mark.parametrize(("function", "name"), [(channels._To, "to"), (channels._From, "from")])
@pytest.mark.parametrize("B", [2, 9])
def test_gradcheck_of_the_products_written_out(
    function: type[torch.autograd.Function], name: str, B: int
) -> None:
    args = [x.requires_grad_() for x in inputs(name, B, 3)]
    assert torch.autograd.gradcheck(function.apply, args)
    out = function.apply(*args)
    assert relative_error(out, FUNCTIONS[name][1](*args)) < 1e-12


def test_rows_are_aligned_for_matrix_products() -> None:
    args = inputs("to", 2, 33)
    assert channels._To.apply(*args).stride() == (E * 40, 40, 1)
