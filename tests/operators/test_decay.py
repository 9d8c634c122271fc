from __future__ import annotations

import torch
import torch.nn.functional as F

from mechbench.operators.decay import ChannelDecay, Decay
from mechbench.training.optimiser import make_optimizer


def test_steps_and_rates_start_in_their_ranges() -> None:
    torch.manual_seed(0)
    decay = Decay(500)
    steps, log_decay = decay(torch.zeros(1, 500, 1))
    assert 9e-4 < steps.min() < 2e-3
    assert 5e-2 < steps.max() < 0.101
    rates = -log_decay / steps
    assert 1 <= rates.min() < 2
    assert 15 < rates.max() <= 16.001


def test_logits_move_the_steps_and_decays_stay_below_one() -> None:
    torch.manual_seed(0)
    decay = Decay(2)
    logits = torch.randn(3, 2, 5)
    steps, log_decay = decay(logits)
    torch.testing.assert_close(steps, F.softplus(logits + decay.bias[:, None]))
    torch.testing.assert_close(log_decay, -steps * decay.log_rate.exp()[:, None])
    assert (log_decay < 0).all()


def test_half_types_become_float32_and_nothing_decays_the_parameters() -> None:
    decay = Decay(2)
    assert decay(torch.zeros(1, 2, 3, dtype=torch.bfloat16))[1].dtype == torch.float32
    groups = make_optimizer(decay, lr=1e-3, weight_decay=0.1).param_groups
    assert {group["weight_decay"] for group in groups} == {0.0}


def test_channels_have_their_own_biases_and_the_rate_of_their_head() -> None:
    torch.manual_seed(0)
    decay = ChannelDecay(3, 100)
    logits = torch.randn(2, 3, 5, 100)
    expected = -F.softplus(logits + decay.bias[:, None]) * decay.log_rate.exp()[:, None, None]
    torch.testing.assert_close(decay(logits), expected)
    steps = F.softplus(decay.bias)
    assert 9e-4 < steps.min() < 2e-3
    assert 5e-2 < steps.max() < 0.101
    assert ((decay.log_rate.exp() >= 1) & (decay.log_rate.exp() <= 16.001)).all()
    assert decay(logits.bfloat16()).dtype == torch.float32
    assert {p.optim["weight_decay"] for p in decay.parameters()} == {0.0}
