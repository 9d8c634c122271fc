from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechbench.ops import delta_product, delta_rule, delta_rule_reference, used
from mechbench.ops.delta_rule import fla_backend
from mechbench.ops.used import ops_used
from ops import fla_double
from ops.conftest import relative_error

B, H, K, P = 2, 2, 16, 24


def draw(L: int, gated: bool) -> list[Tensor | None]:
    """Return q, k, v, log decays and steps up to 2."""
    generator = torch.Generator().manual_seed(L)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k = (F.normalize(normal(B, L, H, K), dim=-1).transpose(1, 2) for _ in range(2))
    v = normal(B, L, H, P).transpose(1, 2)
    return [q, k, v, -normal(B, H, L).square() if gated else None, 2 * normal(B, H, L).sigmoid()]


def slow(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor) -> Tensor:
    return delta_rule_reference(q, k, v, torch.zeros_like(beta) if g is None else g, beta)


def fast(*given: Any) -> Tensor:
    return delta_rule(*given, backend="fla")


def with_gradients(function: Any, given: list[Tensor | None], dy: Tensor) -> list[Tensor]:
    leaves = [None if x is None else x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, [x for x in leaves if x is not None], dy)]


@pytest.mark.parametrize("L", [1, 2, 13])
@pytest.mark.parametrize("gated", [False, True])
def test_what_the_package_is_given_makes_the_steps(
    monkeypatch: pytest.MonkeyPatch, L: int, gated: bool
) -> None:
    fla_double.install(monkeypatch)
    monkeypatch.setattr(used, "_USED", {})
    given, dy = draw(L, gated), torch.randn(B, H, L, P, dtype=torch.float64)
    theirs = with_gradients(slow, given, dy)
    for got, expected in zip(with_gradients(fast, given, dy), theirs, strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 1e-12
    assert ops_used("cpu") == {"delta_rule": "fla"}


@pytest.mark.parametrize("gated", [False, True])
def test_several_steps_a_token_are_its_steps_one_by_one(
    monkeypatch: pytest.MonkeyPatch, gated: bool
) -> None:
    fla_double.install(monkeypatch)
    q, k, v, g, beta = draw(10, gated)
    pairs = [x.unflatten(2, (5, 2)) for x in (k, v)]
    ours = delta_product(q[:, :, 1::2], *pairs, g, beta, backend="fla")
    torch.testing.assert_close(ours, slow(q, k, v, g, beta)[:, :, 1::2])


def test_half_types_keep_their_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    fla_double.install(monkeypatch)
    q, k, v, g, beta = (x.float() for x in draw(9, True))
    assert fast(q, k, v.bfloat16(), g, beta).dtype == torch.bfloat16


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fla_backend, "refused", lambda *_, decays: "decays" if decays else None)
    x, g = torch.zeros(B, H, 5, K, dtype=torch.bfloat16), torch.zeros(B, H, 5)
    assert fla_backend.unsupported(x, x, x, None) is None
    assert fla_backend.unsupported(x, x, x, g) == "decays"
    told = fla_backend.unsupported(x, x, x.float(), None)
    assert told == "the values are float32: its delta rule takes bfloat16 or float16"
    wide = torch.zeros(B, H, 5, 257, dtype=torch.bfloat16)
    assert "257 channels: its delta rule takes at most 256" in str(
        fla_backend.unsupported(wide, wide, x, None)
    )
    monkeypatch.setattr(fla_backend, "refused", lambda *_, decays: None)
    assert "takes one a head" in str(fla_backend.unsupported(x, x, x, x))


@pytest.mark.gpu
@pytest.mark.usefixtures("untuned")
@pytest.mark.parametrize("L", [1, 37, 64, 150, 1030])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gated", [False, True])
def test_the_package_equals_the_steps(
    kernel_device: str, L: int, dtype: torch.dtype, gated: bool
) -> None:
    exact = [
        x.to(dtype).double() if i < 3 and x is not None else x for i, x in enumerate(draw(L, gated))
    ]
    low = [
        None if x is None else x.to(kernel_device, dtype if i < 3 else torch.float32)
        for i, x in enumerate(exact)
    ]
    if reason := fla_backend.unsupported(*low[:4]):
        pytest.skip(reason)
    dy = torch.randn(B, H, L, P, dtype=torch.float64).to(dtype).double()
    theirs = with_gradients(slow, exact, dy)
    ours = with_gradients(fast, low, dy.to(kernel_device, dtype))
    for got, expected in zip(ours, theirs, strict=True):
        assert got.shape == expected.shape
        # One token has no use for its decay, whose gradient is 0.
        assert (got.double().cpu() - expected).norm() <= 2e-2 * max(1, expected.norm())
