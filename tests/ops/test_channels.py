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
@pytest.mark.parametrize("L", [1, 2, 5, 33, 48, 130])
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


# What CUDA runs, on the CPU: one product of matrices at a multiple of 16, otherwise batches one by
# one, and all at once from nine on.
@pytest.mark.parametrize(("function", "name"), [(channels._To, "to"), (channels._From, "from")])
@pytest.mark.parametrize(("B", "L"), [(1, 3), (2, 3), (9, 3), (2, 16)])
def test_gradcheck_of_the_products_written_out(
    function: type[torch.autograd.Function], name: str, B: int, L: int
) -> None:
    args = [x.requires_grad_() for x in inputs(name, B, L)]
    assert torch.autograd.gradcheck(function.apply, args)
    out = function.apply(*args)
    assert relative_error(out, FUNCTIONS[name][1](*args)) < 1e-12


@pytest.mark.parametrize(("function", "name"), [(channels._To, "to"), (channels._From, "from")])
def test_channels_first_in_memory_give_the_same_product(
    function: type[torch.autograd.Function], name: str
) -> None:
    args = inputs(name, 3, 16)
    first = [x.detach() for x in args]
    if name == "from":  # (B, D, L), laid out as (D, B, L)
        first[0] = first[0].transpose(0, 1).contiguous().transpose(0, 1)
    outs, grads = [], []
    for each in (args, first):
        leaves = [x.requires_grad_() for x in each]
        outs.append(function.apply(*leaves))
        grads.append(torch.autograd.grad(outs[-1].square().sum(), leaves))
    for a, b in zip((outs[0], *grads[0]), (outs[1], *grads[1]), strict=True):
        assert relative_error(a, b) < 1e-12


def test_rows_are_aligned_for_matrix_products() -> None:
    assert channels._To.apply(*inputs("to", 1, 33)).stride()[1:] == (48, 1)
    assert channels._To.apply(*inputs("to", 2, 33)).stride() == (E * 48, 48, 1)


def test_channels_come_first_in_memory_where_all_rows_are_aligned() -> None:
    assert channels._To.apply(*inputs("to", 2, 32)).stride() == (32, 64, 1)
