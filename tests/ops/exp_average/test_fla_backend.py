from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import decayed_average, exp_average_reference, used
from mechbench.ops.exp_average import fla_backend
from mechbench.ops.used import ops_used
from ops import fla_double
from ops.conftest import relative_error

B, D = 2, 5


def draw(L: int, D: int) -> list[Tensor]:
    """Return k, v, the bonus and decays from 0.01 to 7, as the operator begins with."""
    generator = torch.Generator().manual_seed(L)
    k, v = torch.randn(2, B, L, D, generator=generator, dtype=torch.float64)
    bonus = torch.randn(D, generator=generator, dtype=torch.float64)
    return [2 * k, v, bonus, torch.linspace(-5, 2, D, dtype=torch.float64).exp()]


def slow(k: Tensor, v: Tensor, bonus: Tensor, decay: Tensor) -> Tensor:
    return exp_average_reference(k, v, bonus[:, None], decay)


def fast(*given: Tensor) -> Tensor:
    return decayed_average(*given, backend="fla")


def with_gradients(function: Any, given: list[Tensor], dy: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, dy, materialize_grads=True)]  # L = 1: no decay


@pytest.mark.parametrize("L", [1, 2, 13])
def test_what_the_package_is_given_makes_the_softmax(
    monkeypatch: pytest.MonkeyPatch, L: int
) -> None:
    fla_double.install(monkeypatch)
    monkeypatch.setattr(used, "_USED", {})
    given, dy = draw(L, D), torch.randn(B, L, D, dtype=torch.float64)
    theirs = with_gradients(slow, given, dy)
    for got, expected in zip(with_gradients(fast, given, dy), theirs, strict=True):
        assert got.shape == expected.shape
        assert got.dtype == torch.float64
        assert (got - expected).norm() <= 1e-5 * max(1, expected.norm())  # it is given float32
    assert ops_used("cpu") == {"exp_average": "fla"}


def test_half_types_keep_their_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    fla_double.install(monkeypatch)
    k, v, bonus, decay = (x.float() for x in draw(9, D))
    y = fast(k.bfloat16(), v.bfloat16(), bonus, decay)
    assert y.dtype == torch.bfloat16
    exact = slow(*(x.bfloat16().double() for x in (k, v)), bonus.double(), decay.double())
    assert relative_error(y, exact) < 4e-3


def test_all_inputs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fla_backend, "refused", lambda *given: str(len(given)))
    assert fla_backend.unsupported(*draw(3, D)) == "4"


@pytest.mark.gpu
@pytest.mark.usefixtures("untuned")
@pytest.mark.parametrize("L", [1, 37, 150])
@pytest.mark.parametrize("channels", [5, 64, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_package_equals_the_softmax(
    kernel_device: str, L: int, channels: int, dtype: torch.dtype
) -> None:
    exact = [x.to(dtype).double() if i < 2 else x for i, x in enumerate(draw(L, channels))]
    low = [x.to(kernel_device, dtype if i < 2 else torch.float32) for i, x in enumerate(exact)]
    if reason := fla_backend.unsupported(*low):
        pytest.skip(reason)
    dy = torch.randn(B, L, channels, dtype=torch.float64).to(dtype).double()
    theirs = with_gradients(slow, exact, dy)
    ours = with_gradients(fast, low, dy.to(kernel_device, dtype))
    for got, expected in zip(ours, theirs, strict=True):
        bound = 1e-2 if dtype == torch.bfloat16 else 1e-4
        assert (got.double().cpu() - expected).norm() <= bound * max(1, expected.norm())
