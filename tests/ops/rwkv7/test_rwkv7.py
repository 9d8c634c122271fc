from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mechbench.ops import rwkv7_output, rwkv7_signals

B, L, H, D = 2, 5, 3, 12
d = D // H


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_signals_are_the_formulas_of_each_token() -> None:
    z, rate, speed = normal(3, B, L, D)
    remove, blend = normal(2, D, seed=1)
    k, read, written, log_w = rwkv7_signals(z, rate, speed, remove, blend, H)
    assert {x.shape for x in (k, read, written, log_w)} == {(B, H, L, d)}
    for h in range(H):
        s = slice(h * d, (h + 1) * d)
        a = 1 / (1 + (-rate[1, 3, s]).exp())
        kappa = z[1, 3, s] * remove[s]
        kappa = kappa / kappa.norm()
        torch.testing.assert_close(k[1, h, 3], z[1, 3, s] * (1 - blend[s] * (1 - a)))
        torch.testing.assert_close(read[1, h, 3], -kappa)
        torch.testing.assert_close(written[1, h, 3], a * kappa)
        expected = -math.exp(-0.5) / (1 + (-speed[1, 3, s]).exp())
        torch.testing.assert_close(log_w[1, h, 3], expected)


def test_output_is_the_formula_of_each_token() -> None:
    y, r, k, v = normal(4, B, H, L, d)
    gate, bonus = normal(B, L, D, seed=1), normal(H, d, seed=2)
    norm = nn.GroupNorm(H, D, eps=1e-3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    out = rwkv7_output(y, r, k, v, gate, bonus, norm)
    expected = norm(y.transpose(1, 2).reshape(B * L, D)).view(B, L, H, d)
    now = torch.einsum("bhlc,bhlc,hc->blh", r, k, bonus)
    expected = expected + now[..., None] * v.transpose(1, 2)
    torch.testing.assert_close(out, gate * expected.flatten(2))


def test_half_types_keep_the_key_and_widen_the_rest() -> None:
    z, rate, speed = normal(3, B, L, D).bfloat16()
    remove, blend = normal(2, D).float()
    k, *wide = rwkv7_signals(z, rate, speed, remove, blend, H)
    assert k.dtype == torch.bfloat16
    assert {x.dtype for x in wide} == {torch.float32}
