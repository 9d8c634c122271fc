from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import taylor_attention, taylor_attention_reference
from mechbench.ops.taylor_attention import kernels
from ops.conftest import relative_error

B, H = 2, 2
CASES: dict[str, dict[str, Any]] = {
    "one token": {"L": 1},
    "less than a block": {"L": 37},
    "whole blocks": {"L": 128},
    "several blocks": {"L": 150},
    "several spans": {"L": 300, "span": 128},
    "whole spans": {"L": 192, "span": 64},
    "many spans": {"L": 1190, "span": 64, "d": 2, "P": 3},
    "one feature": {"L": 150, "span": 64, "d": 1, "P": 1},
    "odd widths": {"L": 150, "span": 64, "d": 5, "P": 24},
    "wide": {"L": 70, "span": 64, "d": 20, "P": 128},
    "wide, one span": {"L": 100, "d": 32, "P": 128},
}


def draw(L: int, d: int, P: int) -> list[Tensor]:
    return [
        torch.randn(B, L, H, n, dtype=torch.float64).transpose(1, 2) for n in (d, d, P)
    ]  # as operators have them


def with_gradients(function: Any, given: list[Tensor], dy: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, dy)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_the_weights(
    kernel_device: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"d": 16, "P": 32} | case
    if tokens := sizes.pop("span", None):
        monkeypatch.setattr(kernels, "span", lambda L, d: tokens)
    given = draw(**sizes)
    dy = torch.randn_like(given[2])
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(taylor_attention, low, dy.to(kernel_device, torch.float32))
    exact = with_gradients(taylor_attention_reference, given, dy)
    for got, expected in zip(ours, exact, strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 2e-5 or expected.abs().max() < 1e-12
        assert got.isfinite().all()


@pytest.mark.parametrize("span", [None, 64])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_types_round_once(
    kernel_device: str, kind: torch.dtype, span: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if span:
        monkeypatch.setattr(kernels, "span", lambda L, d: span)
    low = [x.to(kernel_device, kind) for x in draw(150, 16, 32)]
    dy = torch.randn_like(low[2])
    with torch.autocast("cuda" if kernel_device == "cuda" else "cpu", torch.bfloat16):
        ours = with_gradients(taylor_attention, low, dy)
    exact = with_gradients(
        taylor_attention_reference, [x.cpu().double() for x in low], dy.cpu().double()
    )
    for got, expected in zip(ours, exact, strict=True):
        assert got.dtype == kind
        assert relative_error(got, expected) < 5e-3


def test_types_may_differ(kernel_device: str) -> None:
    q, k, v = (x.to(kernel_device) for x in draw(70, 8, 16))
    y = taylor_attention(q.bfloat16(), k.float(), v.half())
    assert y.dtype == torch.float16
    expected = taylor_attention_reference(q.bfloat16().double(), k, v)
    assert relative_error(y, expected) < 1e-3


def test_short_sequences_are_one_span() -> None:
    assert [kernels.span(L, 16) for L in (1, 1024, 2048, 2049, 131_072)] == [
        1,
        1024,
        2048,
        512,
        512,
    ]
    assert kernels.span(4096, 32) == 4096
    assert kernels.span(131_072, 32) == 2048
