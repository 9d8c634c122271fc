from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechbench.ops.linear import _WIDENS, _Linear, _product, bias_gradient, linear
from ops.conftest import relative_error


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (2, 600, 33)])
def test_linear_is_its_formula_with_gradients(device: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(shape[-1], 3).to(device)
    exact = nn.Linear(shape[-1], 3).to(device).double()
    exact.load_state_dict({k: v.double() for k, v in layer.state_dict().items()})
    x = torch.randn(shape, device=device, requires_grad=True)
    z = x.detach().double().requires_grad_()
    y, want = linear(x, layer), exact(z)
    torch.testing.assert_close(y.double(), want, atol=1e-5, rtol=1e-5)
    grad = torch.randn_like(y)
    got = torch.autograd.grad(y, (x, *layer.parameters()), grad)
    expected = torch.autograd.grad(want, (z, *exact.parameters()), grad.double())
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-5)


def test_autocast_gives_bfloat16(device: str) -> None:
    layer = nn.Linear(4, 3).to(device)
    with torch.autocast(device, torch.bfloat16):
        assert linear(torch.randn(2, 4, device=device), layer).dtype == torch.bfloat16


def arguments(device: str, x_dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Return x, weight and bias, which want gradients, and dy, numbers that bfloat16 has."""
    shapes = (3, 500, 24), (40, 24), (40,), (3, 500, 40)
    x, weight, bias, dy = (torch.randn(s, device=device).bfloat16() for s in shapes)
    given = x.to(x_dtype), weight.float(), bias.float()
    return [t.requires_grad_() for t in given], dy


@pytest.mark.parametrize("x_dtype", [torch.bfloat16, torch.float32])
def test_casts_are_no_steps_of_the_graph(device: str, x_dtype: torch.dtype) -> None:
    args, dy = arguments(device, x_dtype)
    y = _Linear.apply(*args, torch.bfloat16)
    assert y.dtype == torch.bfloat16
    nodes = [f.name() for f, _ in y.grad_fn.next_functions if f is not None]
    assert len(nodes) == 3
    assert all("AccumulateGrad" in name for name in nodes)
    exact = [t.detach().double().requires_grad_() for t in args]
    expected = torch.autograd.grad(F.linear(*exact), exact, dy.double())
    for given, got, want in zip(args, torch.autograd.grad(y, args, dy), expected, strict=True):
        assert got.dtype == given.dtype
        assert got.shape == given.shape
        assert relative_error(got, want) < 3e-3


def test_an_input_that_wants_no_gradient_costs_no_product(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (x, *rest), dy = arguments(device, torch.float32)
    y, plain = (_Linear.apply(each, *rest, torch.bfloat16) for each in (x, x.detach()))
    want = torch.autograd.grad(y, rest, dy)
    module, products = importlib.import_module("mechbench.ops.linear"), []

    def product(*args: Any) -> Tensor:
        products.append(_product(*args))
        return products[-1]

    monkeypatch.setattr(module, "_product", product)
    for a, b in zip(torch.autograd.grad(plain, rest, dy), want, strict=True):
        assert torch.equal(a, b)
    assert len(products) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("x_dtype", [torch.bfloat16, torch.float32])
def test_autocast_is_no_further_from_the_formula_than_pytorch(x_dtype: torch.dtype) -> None:
    args, dy = arguments("cuda", x_dtype)
    layer = nn.Linear(24, 40).cuda()
    layer.weight, layer.bias = (nn.Parameter(t.detach()) for t in args[1:])
    x, exact = args[0], [t.detach().double().requires_grad_() for t in args]
    with torch.autocast("cuda", torch.bfloat16):
        outputs = linear(x, layer), layer(x)
    expected = torch.autograd.grad(F.linear(*exact), exact, dy.double())
    ours, theirs = (torch.autograd.grad(y, (x, *layer.parameters()), dy) for y in outputs)
    for got, other, want in zip(ours, theirs, expected, strict=True):
        assert got.dtype == other.dtype
        assert relative_error(got, want) <= max(1e-5, 1.01 * relative_error(other, want))
    if _WIDENS:
        assert relative_error(ours[1], expected[1]) < 1e-5  # never rounded to bfloat16


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_bias_gradient_has_the_type_asked_for(device: str, dtype: torch.dtype | None) -> None:
    dy = torch.randn(3, 50, 7, device=device).bfloat16()
    got = bias_gradient(dy, dtype)
    assert got.dtype == (dtype or torch.bfloat16)
    assert relative_error(got, dy.double().sum((0, 1))) < (1e-2 if dtype is None else 1e-5)
