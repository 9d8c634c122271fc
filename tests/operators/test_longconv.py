from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mechbench
from mechbench.errors import ConfigError
from mechbench.operators.longconv import LongConv
from mechbench.training.optimiser import make_optimizer
from operators.fidelity import assert_true_to_source

D, MAX = 3, 40


def build(**options: Any) -> LongConv:
    torch.manual_seed(0)
    op = LongConv(D, MAX, **options).double()
    with torch.no_grad():  # taps of which the threshold takes some and leaves others
        op.taps.mul_(100)
    return op


def inputs(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, D, generator=generator, dtype=torch.float64)


def taps(op: LongConv, smooth: int, squash: float) -> list[list[float]]:
    """Smooth and squash number by number."""
    out = []
    for k in op.taps.tolist():
        smoothed = [
            sum(k[t + j] for j in range(-smooth, smooth + 1) if 0 <= t + j < MAX) / (2 * smooth + 1)
            for t in range(MAX)
        ]
        out.append([math.copysign(max(abs(x) - squash, 0.0), x) for x in smoothed])
    return out


def tap_by_tap(op: LongConv, u: Tensor, smooth: int, squash: float) -> Tensor:
    h = torch.tensor(taps(op, smooth, squash), dtype=torch.float64)
    rows = []
    for t in range(u.shape[1]):
        s = []
        for i in range(len(h)):
            past = sum(h[i, lag] * u[:, t - lag, i % D] for lag in range(t + 1))
            s.append(past + op.skip[i] * u[:, t, i % D])
        x = torch.stack(s, -1)  # (B, expand D)
        x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        a, g = (x @ op.out_proj.weight.T + op.out_proj.bias).chunk(2, -1)
        rows.append(a / (1 + torch.exp(-g)))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("length", [1, 7, MAX - 1, MAX])
@pytest.mark.parametrize(("smooth", "squash", "expand"), [(0, 0.1, 2), (3, 0.03, 1), (2, 0.0, 3)])
def test_equals_the_sum_over_taps(length: int, smooth: int, squash: float, expand: int) -> None:
    op, u = build(smooth=smooth, squash=squash, expand=expand), inputs(length)
    with torch.no_grad():
        assert_true_to_source(op, op(u), tap_by_tap(op, u, smooth, squash))


def test_the_threshold_leaves_some_taps_and_takes_others_with_their_gradient() -> None:
    op = build(squash=0.1)
    op(inputs(MAX)).square().sum().backward()
    shut = op.taps.detach().abs() <= 0.1
    assert 0.2 < shut.double().mean() < 0.6
    assert torch.equal(op.filters(MAX) == 0, shut)
    assert torch.equal(op.taps.grad == 0, shut)


def test_smoothing_wider_than_the_filter_is_a_plain_average() -> None:
    op = build(smooth=50, squash=0.0)
    mean = op.taps.sum(1, keepdim=True) / 101
    torch.testing.assert_close(op.filters(MAX), mean.expand(-1, MAX), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(op.filters(5), mean.expand(-1, 5), rtol=1e-12, atol=1e-12)


def test_taps_start_as_released() -> None:
    torch.manual_seed(0)
    random = LongConv(64, 1000).taps.detach()
    assert random.shape == (128, 1000)
    assert abs(random.std() / 2e-3 - 1) < 0.02
    decay = LongConv(64, 1000, init="decay").taps.detach().unflatten(0, (2, 64))
    for channel in (0, 20, 63):
        for place in (slice(0, 10), slice(90, 110)):
            rate = 32 ** (channel / 64)
            expected = 2e-2 * math.exp(-rate * (place.start + place.stop) / 2000)
            spread = decay[:, max(0, channel - 3) : channel + 4, place].std()
            assert 0.7 < spread / expected < 1.4


@pytest.mark.parametrize("smooth", [0, 2])
def test_materialized_matrix_is_causal_and_gives_the_fast_path(smooth: int) -> None:
    op, u = build(smooth=smooth), inputs(11)
    H = mechbench.materialize(op, u)
    assert H.shape == (2, 2 * D, 11, 11)
    assert torch.equal(H.triu(1), torch.zeros_like(H))
    with torch.no_grad():
        s = (H @ u.transpose(1, 2).repeat(1, 2, 1)[..., None])[..., 0].transpose(1, 2)
        y = torch.nn.functional.glu(op.out_proj(torch.nn.functional.gelu(s)), -1)
        torch.testing.assert_close(op(u), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("filter_lr", "lr"), [(1e-3, 1e-3), (None, 4e-3)])
def test_taps_have_their_own_learning_rate_and_no_decay(filter_lr: float | None, lr: float) -> None:
    op = build(filter_lr=filter_lr)
    for group in make_optimizer(op, lr=4e-3, weight_decay=0.1).param_groups:
        if any(parameter is op.taps for parameter in group["params"]):
            assert (group["lr"], group["weight_decay"]) == (lr, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expand": 0}, "expand is 0: expected at least 1"),
        ({"squash": -0.1}, "squash is -0.1: expected 0 or more"),
        ({"smooth": -1}, "smooth is -1: expected 0 or more"),
        ({"filter_lr": 0.0}, "filter_lr is 0.0: expected a positive number"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LongConv(D, MAX, **options)
