from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mechbench.ops import forgetting_attention, forgetting_heads, log_gates
from mechbench.ops.forgetting_attention.kernels import forward
from ops.conftest import relative_error

B, H = 2, 2
CASES: dict[str, dict[str, Any]] = {
    "two tokens": {"L": 2},
    "less than a block": {"L": 37},
    "whole blocks": {"L": 128},
    "many blocks": {"L": 330},
    "far keys forgotten": {"L": 330, "strength": 3.0},
    "open gates": {"L": 200, "strength": 0.0},
    "wide": {"L": 70, "K": 128, "P": 64},
    "odd widths": {"L": 70, "K": 5, "P": 24},
}


def draw(L: int, K: int = 8, P: int = 16, strength: float = 0.05) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    # as operators have them: heads of a token together
    q, k, v = (normal(B, L, H, d).transpose(1, 2) for d in (K, K, P))
    return [q, k, v, -strength * torch.rand(B, L, H, dtype=torch.float64).transpose(1, 2)]


def with_gradients(
    function: Callable[..., Tensor], given: Sequence[Tensor], dy: Tensor
) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    return [y, *torch.autograd.grad(y, leaves, dy)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_the_definition(
    kernel_device: str, case: dict[str, Any]
) -> None:
    given = draw(**case)
    dy = torch.randn_like(given[2])
    low = [x.to(kernel_device, torch.float32) for x in given]
    ours = with_gradients(forgetting_attention, low, dy.to(kernel_device, torch.float32))
    expected = with_gradients(forgetting_attention, given, dy)
    for got, right, bound in zip(ours, expected, [2e-5] * 4 + [1e-4], strict=True):
        assert got.shape == right.shape
        assert relative_error(got, right) < bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strength", [0.05, 3.0])
def test_half_types_sum_in_float32(kernel_device: str, dtype: torch.dtype, strength: float) -> None:
    given = [x.to(dtype).double() for x in draw(300, strength=strength)]
    dy = torch.randn_like(given[2]).to(dtype).double()
    low = [x.to(kernel_device, dtype) for x in given]
    ours = with_gradients(forgetting_attention, low, dy.to(kernel_device, dtype))
    expected = with_gradients(forgetting_attention, given, dy)
    for got, right in zip(ours, expected, strict=True):
        assert got.dtype == dtype
        assert relative_error(got, right) < 1e-2


@pytest.mark.parametrize("L", [1, 45, 260])
def test_heads_of_a_projection_are_the_same(kernel_device: str, L: int) -> None:
    qkv, gate = torch.randn(B, L, 3, H, 8).double(), 3 * torch.randn(B, L, H).double()
    dy = torch.randn(B, H, L, 8).double()

    def apart(qkv: Tensor, gate: Tensor) -> Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return forgetting_attention(q, k, v, log_gates(gate))

    low = [x.to(kernel_device, torch.float32) for x in (qkv, gate)]
    y, d_qkv, d_gate = with_gradients(forgetting_heads, low, dy.to(kernel_device, torch.float32))
    expected = with_gradients(apart, (qkv, gate), dy)
    assert relative_error(y, expected[0]) < 2e-5
    assert relative_error(d_qkv, expected[1]) < 2e-5
    assert (d_gate.cpu() - expected[2]).norm() < 1e-4 * expected[2].norm() + 1e-6


def test_blocks_whose_weights_are_zero_are_left_out_and_others_are_not(kernel_device: str) -> None:
    L, R = 512, 64
    q, k, v = (torch.randn(1, 1, L, 16, device=kernel_device) for _ in range(3))

    def first(per_token: float, size: float = 1.0) -> list[int]:
        gate = torch.full((1, 1, L), per_token, device=kernel_device)
        found: list[int] = forward(size * q, size * k, v, gate, False, "tf32x3")[1].first.tolist()
        return found[0][0]

    assert first(0.0) == [0] * (L // R)
    assert first(-0.2) == [0] * (L // R)
    assert first(-100.0) == [0, *range(L // R - 1)]  # a block's first query sees the one before
    assert first(-1.0)[-1] in range(1, 6)
    assert first(-1.0, size=6.0) == [0] * (L // R)  # such logits may outweigh the gates


def test_a_far_key_that_outweighs_its_gates_is_seen(kernel_device: str) -> None:
    """Gates take 148 from its logit, more than float32 can hold; its product is 400."""
    L = 300
    q, k, v, g = draw(L, K=16)
    q[:, :, -1], k[:, :, 3] = 40.0, 2.5
    g[:] = -0.5
    ours = forgetting_attention(*(x.to(kernel_device, torch.float32) for x in (q, k, v, g)))
    expected = forgetting_attention(q, k, v, g)
    assert relative_error(ours, expected) < 2e-5
    assert relative_error(expected[:, :, -1], v[:, :, 3]) < 1e-6


def test_long_sums_keep_near_keys_exact(kernel_device: str) -> None:
    """Gates that add up to -20,000, which float32 holds to 0.002; only near keys count."""
    q, k, v, g = draw(4000, strength=10.0)
    ours = forgetting_attention(*(x[:1, :1].to(kernel_device, torch.float32) for x in (q, k, v, g)))
    last = forgetting_attention(*(x[:1, :1, -300:] for x in (q, k, v, g)))
    assert relative_error(ours[:, :, -1], last[:, :, -1]) < 2e-5


def test_any_strides_are_read(kernel_device: str) -> None:
    given = [x.to(kernel_device, torch.float32) for x in draw(50)]
    far = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in given]
    dy = torch.randn_like(given[2])
    near = with_gradients(forgetting_attention, [x.contiguous() for x in given], dy)
    for one, other in zip(with_gradients(forgetting_attention, far, dy), near, strict=True):
        assert torch.equal(one, other)


def test_wide_heads_and_mixed_types_take_the_other_path(kernel_device: str) -> None:
    q, k, v, g = (x.to(kernel_device, torch.float32) for x in draw(9, K=200))
    expected = forgetting_attention(*(x.double() for x in (q, k, v, g)))
    assert relative_error(forgetting_attention(q, k, v, g), expected) < 1e-5
    mixed = forgetting_attention(q.double(), k, v, g)
    assert mixed.dtype == torch.float32
    assert relative_error(mixed, expected) < 1e-5
