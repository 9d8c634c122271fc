from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mechbench.ops import gated_norm, heads_norm, norm_gated

B, H, L, P = 2, 3, 5, 4


def draw(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, nn.RMSNorm]:
    norm = nn.RMSNorm(P, eps=1e-5)
    nn.init.normal_(norm.weight)
    return torch.randn(B, H, L, P).to(dtype), torch.randn(B, L, H * P).to(dtype), norm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_is_the_formula_for_every_head_and_position(dtype: torch.dtype) -> None:
    y, gate, norm = draw(dtype)
    norm = norm.double() if dtype == torch.float64 else norm
    out = gated_norm(y, gate, norm)
    assert out.dtype == dtype
    weight = norm.weight.detach().double()
    for h in range(H):
        x, z = y[:, h].double(), gate[..., h * P : (h + 1) * P].double()
        unit = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        expected = unit * weight * z / (1 + (-z).exp())
        got = out[..., h * P : (h + 1) * P].detach().double()
        bound = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
        torch.testing.assert_close(got, expected, rtol=bound, atol=bound)


def test_the_size_of_a_head_does_not_matter_beyond_eps() -> None:
    y, gate, norm = draw(torch.float64)
    norm = norm.double()
    torch.testing.assert_close(
        gated_norm(100 * y, gate, norm), gated_norm(y, gate, norm), rtol=1e-2, atol=1e-4
    )


def test_norms_of_heads_agree_with_those_that_are_gated() -> None:
    y, gate, norm = draw(torch.float64)
    norm = norm.double()
    plain = heads_norm(y, norm, torch.float64)
    torch.testing.assert_close(plain * F.silu(gate), gated_norm(y, gate, norm))
    torch.testing.assert_close(heads_norm(y, norm, torch.float64, gate), gated_norm(y, gate, norm))
    torch.testing.assert_close(
        heads_norm(y, norm, torch.float64, gate, "sigmoid"), plain * gate.sigmoid()
    )


def test_a_norm_behind_its_gate_forgets_how_large_both_are() -> None:
    y, gate, _ = draw(torch.float64)
    norm = nn.RMSNorm(H * P, eps=1e-12, dtype=torch.float64)
    y = y.transpose(1, 2).flatten(2)
    out = norm_gated(y, gate, norm)
    torch.testing.assert_close(out.square().mean(-1), torch.ones(B, L, dtype=torch.float64))
    torch.testing.assert_close(norm_gated(100 * y, gate, norm), out)
    torch.testing.assert_close(out.sign(), (y * F.silu(gate)).sign())


def test_half_types_are_normed_in_float32_without_a_warning() -> None:
    y, _, norm = draw(torch.bfloat16)
    rows = torch.randn(B, L, P).to(torch.bfloat16)
    torch.set_warn_always(True)  # PyTorch's own come once a process, and are errors here
    try:
        got = heads_norm(y, norm, torch.float32), norm_gated(rows, rows, norm)
    finally:
        torch.set_warn_always(False)
    torch.testing.assert_close(got[0], heads_norm(y.float(), norm, torch.float32))
    assert got[1].dtype == torch.bfloat16
