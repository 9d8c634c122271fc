from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import channel_decay_attention, channel_decay_reference
from mechbench.ops.channel_decay import kernels, log_decays
from ops.conftest import relative_error

B, H = 2, 2
CASES: dict[str, dict[str, Any]] = {
    "one token": {"L": 1},
    "two tokens": {"L": 2},
    "less than a chunk": {"L": 29},
    "whole chunks": {"L": 128},
    "an odd end": {"L": 101},
    "longer chunks": {"L": 131, "K": 32, "P": 48},
    "values in parts": {"L": 70, "K": 20, "P": 100},
    "wide": {"L": 40, "K": 128, "P": 16},
    "odd widths": {"L": 70, "K": 5, "P": 24},
    "no decay": {"L": 70, "decay": 0.0},
    "strong decay": {"L": 70, "decay": -1e4},
    "logits": {"L": 70, "scale": 0.3, "temperature": 0.5},
}


def draw(L: int, K: int, P: int, decay: float = -1.0) -> list[Tensor]:
    """Return q, k, v, log_decay, with tokens first in memory, as operators have them."""
    generator = torch.Generator().manual_seed(L + K + P)
    q, k, v, g = (
        torch.randn(B, L, H, n, generator=generator, dtype=torch.float64).transpose(1, 2)
        for n in (K, K, P, K)
    )
    return [q, k, v, decay * g.square()]


def slow(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float | None = None,
    temperature: float | None = None,
) -> Tensor:
    q = q if scale is None else scale * q
    return channel_decay_reference(q, k, v, log_decays(g, temperature))


def with_gradients(function: Any, given: list[Tensor], dy: Tensor, **options: Any) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves, **options)
    return [y, *torch.autograd.grad(y, leaves, dy)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_the_steps(
    kernel_device: str, case: dict[str, Any]
) -> None:
    sizes = {"K": 8, "P": 16} | case
    options = {x: sizes.pop(x) for x in ("scale", "temperature") if x in sizes}
    given = draw(**sizes)
    dy = torch.randn(B, H, sizes["L"], sizes["P"], dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(
        channel_decay_attention, low, dy.to(kernel_device, torch.float32), **options
    )
    for got, expected in zip(ours, with_gradients(slow, given, dy, **options), strict=True):
        assert got.shape == expected.shape
        assert got.isfinite().all()
        if expected.norm() > 0:
            assert relative_error(got, expected) < 2e-5


def test_channels_that_forget_all_spoil_neither_the_others_nor_what_follows(
    kernel_device: str,
) -> None:
    q, k, v, g = draw(150, 8, 16, -0.01)
    g[..., ::2] *= 1e6
    g[:, :, 40:42] = -1e4
    dy = torch.randn(B, H, 150, 16, dtype=torch.float64)
    given = [q, k, v, g]
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(channel_decay_attention, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(slow, given, dy), strict=True):
        assert relative_error(got, expected) < 2e-5


def test_half_types_round_once(kernel_device: str) -> None:
    given = [x.bfloat16().double() for x in draw(150, 16, 32)]
    dy = torch.randn(B, H, 150, 32, dtype=torch.float64).bfloat16().double()
    low = [x.to(kernel_device, torch.bfloat16) for x in given]
    with torch.autocast("cuda" if kernel_device == "cuda" else "cpu", torch.bfloat16):
        ours = with_gradients(
            channel_decay_attention, low, dy.to(kernel_device, torch.bfloat16), temperature=2.0
        )
    assert [x.dtype for x in ours] == [torch.bfloat16] * 5
    for got, expected in zip(ours, with_gradients(slow, given, dy, temperature=2.0), strict=True):
        assert relative_error(got, expected) < 5e-3


def test_a_scan_longer_than_a_tile_carries_on(
    kernel_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_CHUNKS", 2)
    given = draw(200, 8, 16, -0.02)
    dy = torch.randn(B, H, 200, 16, dtype=torch.float64)
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(channel_decay_attention, low, dy.to(kernel_device, torch.float32))
    for got, expected in zip(ours, with_gradients(slow, given, dy), strict=True):
        assert relative_error(got, expected) < 2e-5


def test_chunks_are_short_where_states_are_small() -> None:
    assert kernels.tile(8, 16).chunk == 16
    assert kernels.tile(32, 64).chunk == 32
    assert kernels.tile(128, 128).warps > kernels.tile(32, 64).warps
