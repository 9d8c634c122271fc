from __future__ import annotations

import torch
from ops.conftest import relative_error

from mechbench.operators.channel_mixing import ChannelMixing

D = 6


def test_equals_the_formulas_token_by_token() -> None:
    mixing = ChannelMixing(D, 0.5).double()
    u = torch.randn(2, 9, D, dtype=torch.float64, requires_grad=True)
    before, rows = torch.zeros(2, D, dtype=torch.float64), []
    for x in u.unbind(1):
        k = (mixing.mix_k * x + (1 - mixing.mix_k) * before) @ mixing.key.weight.T
        r = (mixing.mix_r * x + (1 - mixing.mix_r) * before) @ mixing.receptance.weight.T
        rows.append((k.clamp_min(0) ** 2 @ mixing.value.weight.T) / (1 + torch.exp(-r)))
        before = x
    y, expected = mixing(u), torch.stack(rows, 1)
    assert relative_error(y, expected) < 2e-15
    inputs = [u, *mixing.parameters()]
    weight = torch.randn_like(y)
    found, wanted = (torch.autograd.grad((z * weight).sum(), inputs) for z in (y, expected))
    for got, want in zip(found, wanted, strict=True):
        assert relative_error(got, want) < 1e-14


def test_mixes_start_as_released() -> None:
    place = torch.arange(D) / D
    for fall in (1.0, 0.5):
        mixing = ChannelMixing(D, fall)
        assert torch.equal(mixing.mix_k, place**fall)
        assert torch.equal(mixing.mix_r, place**fall)
