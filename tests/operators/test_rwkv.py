from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.channel_mixing import ChannelMixing
from mechbench.operators.rwkv import RWKV
from mechbench.training.model import Backbone
from operators.fidelity import assert_true_to_source

D = 6


def build() -> RWKV:
    torch.manual_seed(0)
    return RWKV(D, 64).double()


def inputs(L: int) -> Tensor:
    return torch.randn(2, L, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def by_hand(op: RWKV, u: Tensor) -> Tensor:
    """Carry the two sums from token to token, as the paper's recurrence."""
    w = op.speed.exp()
    before = num = den = torch.zeros(len(u), D, dtype=torch.float64)
    rows = []
    for t in range(u.shape[1]):
        x = u[:, t]
        r = (op.mix_r * x + (1 - op.mix_r) * before) @ op.receptance.weight.T
        k = (op.mix_k * x + (1 - op.mix_k) * before) @ op.key.weight.T
        v = (op.mix_v * x + (1 - op.mix_v) * before) @ op.value.weight.T
        now = torch.exp(k + op.bonus)
        wkv = (num + now * v) / (den + now)
        rows.append((wkv / (1 + torch.exp(-r))) @ op.out_proj.weight.T)
        num = torch.exp(-w) * num + torch.exp(k) * v
        den = torch.exp(-w) * den + torch.exp(k)
        before = x
    return torch.stack(rows, 1)


@pytest.mark.parametrize("L", [1, 2, 3, 17, 64])
def test_equals_the_recurrence_run_token_by_token(L: int) -> None:
    op, u = build(), inputs(L)
    assert_true_to_source(op, op(u), by_hand(op, u))


def test_gradients_equal_those_of_the_recurrence() -> None:
    op, weight = build(), inputs(33).flip(1)
    found = []
    for function in (op, lambda u: by_hand(op, u)):
        op.zero_grad()
        u = inputs(33).requires_grad_()
        (weight * function(u)).sum().backward()
        found.append([u.grad, *(p.grad.clone() for p in op.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_keys_of_any_size_stay_finite() -> None:
    op = build().float()
    with torch.no_grad():
        op.key.weight.mul_(500)
    y = op(inputs(64).float())
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in op.parameters())


def test_materialized_weights_are_causal_and_give_the_fast_path() -> None:
    op, u = build(), inputs(11)
    H = mechbench.materialize(op, u)
    assert H.shape == (2, D, 11, 11)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        before = torch.cat([torch.zeros_like(u[:, :1]), u[:, :-1]], 1)
        v = op.value(op.mix_v * u + (1 - op.mix_v) * before).transpose(1, 2)
        y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
        torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)


def test_decays_start_from_slow_to_fast() -> None:
    w = build().speed.exp()
    assert w[0].item() == pytest.approx(2.718281828**-5)
    assert w[-1].item() == pytest.approx(2.718281828**3)
    assert (w.diff() > 0).all()


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_with_a_depth_each_layer_starts_as_released(layer: int) -> None:
    op = RWKV(D, 64, depth=4, layer=layer)
    for i in range(D):
        rise, fall, x = layer / 3, 1 - layer / 4, i / D
        assert op.mix_k[i].item() == pytest.approx(x**fall, abs=1e-6)
        assert op.mix_v[i].item() == pytest.approx(x**fall + 0.3 * rise, abs=1e-6)
        assert op.mix_r[i].item() == pytest.approx(x ** (fall / 2), abs=1e-6)
        speed = -5 + 8 * (i / (D - 1)) ** (0.7 + 1.3 * rise)
        assert op.speed[i].item() == pytest.approx(speed, abs=1e-5)
        assert op.bonus[i].item() == pytest.approx(
            math.log(0.3) + 0.5 * ((i + 1) % 3 - 1), abs=1e-6
        )


def test_without_a_depth_all_layers_start_as_the_first_of_any() -> None:
    first, second = RWKV(D, 64, depth=4), RWKV(D, 64, layer=1)
    for name in ("mix_r", "mix_k", "mix_v", "speed", "bonus"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    with pytest.raises(ConfigError, match="depth is 1: expected at least 2"):
        RWKV(D, 64, depth=1, layer=1)


def test_channel_mixing_takes_the_place_of_the_mlp() -> None:
    sizes = {"vocab_size": 8, "d_model": D, "n_layers": 2, "max_seqlen": 16}
    model = Backbone("rwkv", {"channel_mixing": True, "depth": 2}, **sizes)
    for layer, block in enumerate(model.blocks):
        assert isinstance(block.channel_mixing, ChannelMixing)
        place = torch.arange(D) / D
        assert torch.equal(block.channel_mixing.mix_k, place ** (1 - layer / 2))
        assert not hasattr(block, "up")
    tokens = torch.randint(8, (2, 16))
    logits = model(tokens)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    tokens[:, 9] = (tokens[:, 9] + 1) % 8
    moved = (model(tokens) - logits).abs().amax((0, 2))
    assert not moved[:9].any()
    assert moved[9:11].all()
    assert Backbone("rwkv", {}, **sizes).blocks[0].channel_mixing is None
