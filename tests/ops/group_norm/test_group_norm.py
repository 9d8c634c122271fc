from __future__ import annotations

import torch
from torch import nn

from mechbench.ops import gated_head_norm, head_norm


def test_is_group_norm_of_each_position_with_its_gradients(device: str) -> None:
    H, d = 3, 5
    norm = nn.GroupNorm(H, H * d, eps=1e-3).to(device, torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    y = torch.randn(2, H, 7, d, device=device, dtype=torch.float64, requires_grad=True)
    joined = y.transpose(1, 2).flatten(2)  # (B, L, H d)
    expected = norm(joined.flatten(0, 1)).view_as(joined)
    got = head_norm(y, norm)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(got)
    leaves = [y, norm.weight, norm.bias]
    ours, theirs = (torch.autograd.grad((x * weight).sum(), leaves) for x in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_half_types_leave_in_the_dtype_of_the_weights(device: str) -> None:
    norm = nn.GroupNorm(2, 8).to(device)
    y = torch.randn(1, 2, 3, 4, device=device).bfloat16()
    assert head_norm(y, norm).dtype == torch.float32


def test_the_gate_passes_silu() -> None:
    norm, y = nn.GroupNorm(2, 6), torch.randn(1, 2, 4, 3)
    gate = torch.randn(1, 4, 6)
    expected = gate * gate.sigmoid() * head_norm(y, norm)
    torch.testing.assert_close(gated_head_norm(y, gate, norm), expected)
