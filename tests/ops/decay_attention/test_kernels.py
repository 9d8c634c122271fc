from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import decay_attention, decay_attention_reference
from mechbench.ops.decay_attention import kernels
from ops.conftest import relative_error
from ops.decay_attention.draws import B, H, inputs

CASES: dict[str, dict[str, Any]] = {
    "two tokens": {"L": 2},
    "less than a chunk": {"L": 37},
    "whole chunks": {"L": 128},
    "many segments": {"L": 1030},
    "shared queries and keys": {"L": 70, "heads": 1},
    "no decay": {"L": 70, "decay": "none"},
    "constant decay": {"L": 150, "decay": "constant"},
    "wide": {"L": 70, "K": 128, "P": 64},
    "odd widths": {"L": 70, "K": 5, "P": 24},
}


def with_gradients(function: Any, given: list[Tensor | None], dy: Tensor) -> list[Tensor]:
    leaves = [None if x is None else x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, [x for x in leaves if x is not None], dy)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_the_steps(
    kernel_device: str, case: dict[str, Any]
) -> None:
    sizes = {"K": 8, "P": 16, "heads": H, "decay": "step"} | case
    given = inputs(**sizes)
    dy = torch.randn(B, H, sizes["L"], sizes["P"], dtype=torch.float64)
    low = [None if x is None else x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(decay_attention, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(
        ours, with_gradients(decay_attention_reference, given, dy), strict=True
    ):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 2e-5


def test_half_types_round_once(kernel_device: str) -> None:
    given = inputs(150, 16, 32, 1, "step")
    dy = torch.randn(B, H, 150, 32, dtype=torch.float64).bfloat16().double()
    given = [x.bfloat16().double() for x in given[:3] if x is not None] + given[3:]
    low = [x.to(kernel_device, torch.bfloat16) for x in given[:3] if x is not None]
    low += [given[3].to(kernel_device, torch.float32)]
    with torch.autocast("cuda" if kernel_device == "cuda" else "cpu", torch.bfloat16):
        ours = with_gradients(decay_attention, low, dy.to(kernel_device, torch.bfloat16))
    assert [x.dtype for x in ours] == [torch.bfloat16] * 4 + [torch.float32]
    for got, expected in zip(
        ours, with_gradients(decay_attention_reference, given, dy), strict=True
    ):
        assert relative_error(got, expected) < 5e-3


@pytest.mark.parametrize(
    "case", ["step", "one segment", "shared queries and keys", "many segments"]
)
@pytest.mark.parametrize("skipped", [True, False])
def test_values_are_scaled_and_skip_on_the_way(
    kernel_device: str, case: str, skipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "one segment":  # of several chunks
        monkeypatch.setattr(kernels, "_PROGRAMS", 1)
    sizes = {"K": 8, "P": 16, "heads": H, "decay": "step", "L": 150} | CASES.get(case, {})
    q, k, v, g = inputs(**sizes)
    L = sizes["L"]
    w = torch.rand(B, L, H, dtype=torch.float64).transpose(1, 2)
    d = torch.randn(H, dtype=torch.float64)
    dy = torch.randn(B, H, L, 16, dtype=torch.float64)

    def slow(q: Tensor, k: Tensor, v: Tensor, g: Tensor, w: Tensor, *d: Tensor) -> Tensor:
        y = decay_attention_reference(q, k, v * w[..., None], g)
        return y + d[0][:, None, None] * v if d else y

    def fast(q: Tensor, k: Tensor, v: Tensor, g: Tensor, w: Tensor, *d: Tensor) -> Tensor:
        return decay_attention(q, k, v, g, scale=w, skip=d[0] if d else None)

    given = [q, k, v, g, w, *([d] if skipped else [])]
    low = [None if x is None else x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(fast, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(slow, given, dy), strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 2e-5


def test_a_long_sequence_of_few_heads_is_cut_up(kernel_device: str) -> None:
    x = torch.zeros(1, 1, 4096, 8, device=kernel_device)
    cut = kernels.plan(x, x, "tf32")
    assert cut.segments > 1
    assert (cut.segments - 1) * cut.per_segment * cut.chunk < 4096
    assert cut.segments * cut.per_segment * cut.chunk >= 4096
    many = torch.zeros(64, 4, 4096, 8, device=kernel_device)
    assert kernels.plan(many, many, "tf32").segments == 1
