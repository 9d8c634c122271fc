from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.errors import ConfigError
from mechbench.ops import decay_attention, decay_attention_reference, used
from mechbench.ops.decay_attention import fla_backend
from mechbench.ops.used import ops_used
from ops import fla_double
from ops.conftest import relative_error
from ops.decay_attention.draws import B, H, inputs

K, P = 16, 24


def draw(L: int, heads: int, decay: str) -> list[Tensor | None]:
    """Return q, k, v, log decays, scales and skips."""
    generator = torch.Generator().manual_seed(L)
    scale, skip = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((B, H, L), (H,))
    )
    return [*inputs(L, K, P, heads, decay), scale.sigmoid(), skip]


def slow(q: Tensor, k: Tensor, v: Tensor, g: Any, w: Tensor | None, d: Tensor | None) -> Tensor:
    y = decay_attention_reference(q, k, v if w is None else v * w[..., None], g)
    return y if d is None else y + d[:, None, None] * v


def fast(q: Tensor, k: Tensor, v: Tensor, g: Any, w: Tensor | None, d: Tensor | None) -> Tensor:
    return decay_attention(q, k, v, g, scale=w, skip=d, backend="fla")


def with_gradients(function: Any, given: list[Tensor | None], dy: Tensor) -> list[Tensor]:
    """Return the outputs and the gradients, but of constant decays, which have none."""
    leaves = [
        x if x is None or (i == 3 and x.ndim == 2) else x.detach().requires_grad_()
        for i, x in enumerate(given)
    ]
    y = function(*leaves)
    return [
        y,
        *torch.autograd.grad(y, [x for x in leaves if x is not None and x.requires_grad], dy),
    ]


@pytest.mark.parametrize("L", [1, 2, 13])
@pytest.mark.parametrize("heads", [1, H])
@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("decay", ["none", "constant", "step"])
def test_what_the_package_is_given_makes_the_steps(
    monkeypatch: pytest.MonkeyPatch, L: int, heads: int, around: bool, decay: str
) -> None:
    fla_double.install(monkeypatch)
    monkeypatch.setattr(used, "_USED", {})
    given = draw(L, heads, decay)
    if not around:
        given[4:] = [None, None]
    dy = torch.randn(B, H, L, P, dtype=torch.float64)
    theirs = with_gradients(slow, given, dy)
    for got, expected in zip(with_gradients(fast, given, dy), theirs, strict=True):
        assert got.shape == expected.shape
        # Constant decays are passed in float32.
        assert relative_error(got, expected) < (1e-6 if decay == "constant" else 1e-12)
    assert ops_used("cpu") == {"decay_attention": "fla"}


def test_a_learnt_decay_gets_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    fla_double.install(monkeypatch)
    q, k, v, g, *_ = draw(9, H, "constant")
    grads = []
    for function in (fast, slow):
        leaf = g.clone().requires_grad_()
        grads += torch.autograd.grad(function(q, k, v, leaf, None, None).sum(), leaf)
    assert relative_error(*grads) < 1e-12


def test_types_are_those_of_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    fla_double.install(monkeypatch)
    q, k, v, g, w, d = (x.float() for x in draw(9, H, "step"))
    assert fast(q, k, v.bfloat16(), g, w, d).dtype == torch.bfloat16


def test_without_the_package_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechbench.ops.fla.missing", lambda: "not there")
    with pytest.raises(ConfigError, match=r"backend 'fla' cannot run: not there$"):
        fast(*draw(3, H, "none"))


def test_whatever_decays_is_said_to_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fla_backend, "refused", lambda *_, decays: asked.append(decays))
    x = torch.zeros(B, H, 5, K)
    fixed = torch.zeros(H, 1)
    for g in (None, fixed, torch.zeros(()), torch.zeros(B, H, 1), torch.zeros(5)):
        fla_backend.unsupported(x, x, x, g)
    fla_backend.unsupported(x, x, x, fixed.requires_grad_())
    assert asked == [False, True, True, True, True, True]


@pytest.mark.gpu
@pytest.mark.usefixtures("untuned")
@pytest.mark.parametrize("L", [1, 37, 64, 150, 1030])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decay", ["none", "constant", "step"])
def test_the_package_equals_the_steps(
    kernel_device: str, L: int, dtype: torch.dtype, decay: str
) -> None:
    exact = [
        x.to(dtype).double() if i < 3 and x is not None else x
        for i, x in enumerate(draw(L, 1, decay))
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
        bound = 2e-2 if dtype == torch.bfloat16 else 5e-3
        # One token has no use for its decay, whose gradient is 0.
        assert (got.double().cpu() - expected).norm() <= bound * max(1, expected.norm())
