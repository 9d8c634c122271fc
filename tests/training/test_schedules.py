from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from mechbench.errors import ConfigError
from mechbench.training.optimiser import set_lr
from mechbench.training.schedules import Averaged, Constant, Cosine, ScheduleFree

LR = 1e-2


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def make(kind: type[Constant], **options: Any) -> tuple[nn.Module, Any, Constant]:
    model = make_model()
    optimizer = kind.optimizer(model, LR, 0.1, **options)
    return model, optimizer, kind(model, optimizer, 4, **options)


def go(model: nn.Module, optimizer: Any, schedule: Constant, steps: range) -> None:
    for step in steps:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        model.zero_grad()
        model(x.to(next(model.parameters()))).square().mean().backward()
        set_lr(optimizer, schedule.factor(step, 10 * step))
        optimizer.step()
        schedule.updated(step + 1)


@pytest.mark.parametrize("kind", [Constant, Averaged, ScheduleFree])
def test_rates_warm_up_and_know_no_budget(kind: type[Constant]) -> None:
    _, _, schedule = make(kind)
    rates = [schedule.factor(step, 10**step) for step in range(7)]
    assert rates == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert schedule.validated(7, 70, 0.5) == 7
    assert not schedule.due(10**9)


def test_cosine_ends_with_the_budget() -> None:
    _, _, schedule = make(Cosine, budget_tokens=1000)
    assert schedule.factor(0, 0) == 0.25
    assert schedule.factor(9, 250) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))
    assert schedule.factor(99, 1000) == pytest.approx(0)


@pytest.mark.parametrize("sharpness", [1.0, 4.5, 9.0])
def test_average_is_the_weighted_sum_of_all_steps(sharpness: float) -> None:
    model, optimizer, schedule = make(Averaged, sharpness=sharpness)
    model.double()
    schedule = Averaged(model, optimizer, 4, sharpness=sharpness)
    seen = []
    for step in range(30):
        go(model, optimizer, schedule, range(step, step + 1))
        seen.append([p.detach().clone() for p in model.parameters()])
    weights = []
    for i in range(1, 31):  # what step i brought, and what later ones left of it
        kept = math.prod(max(0.0, 1 - sharpness / j) for j in range(i + 1, 31))
        weights.append(min(1.0, sharpness / i) * kept)
    assert sum(weights) == pytest.approx(1)
    mean_age = sum(w * (30 - i) for i, w in enumerate(weights, 1))
    assert mean_age == pytest.approx(30 / (sharpness + 1), abs=1)
    with schedule.weights():
        for i, p in enumerate(model.parameters()):
            wanted = sum(w * s[i] for w, s in zip(weights, seen, strict=True))
            torch.testing.assert_close(p.detach(), wanted, rtol=1e-12, atol=1e-14)
    for p, last in zip(model.parameters(), seen[-1], strict=True):
        assert torch.equal(p, last)


@pytest.mark.parametrize("kind", [Averaged, ScheduleFree])
def test_evaluated_weights_are_others_and_training_does_not_notice(kind: type[Constant]) -> None:
    model, optimizer, schedule = make(kind)
    undisturbed, other, same = make(kind)
    go(undisturbed, other, same, range(12))
    for step in range(12):
        go(model, optimizer, schedule, range(step, step + 1))
        trained = copy.deepcopy(model.state_dict())
        with schedule.weights():
            found = {k: torch.equal(v, trained[k]) for k, v in model.state_dict().items()}
    buffers = {name for name, _ in model.named_buffers()}
    assert {name for name, equal in found.items() if equal} == buffers
    for a, b in zip(model.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [Averaged, ScheduleFree])
def test_state_carries_on_bit_for_bit(kind: type[Constant]) -> None:
    whole, optimizer, schedule = make(kind)
    go(whole, optimizer, schedule, range(20))
    first, half, early = make(kind)
    go(first, half, early, range(11))
    second, other, late = make(kind)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(copy.deepcopy(half.state_dict()))
    late.load_state_dict(copy.deepcopy(early.state_dict()))
    go(second, other, late, range(11, 20))
    with schedule.weights(), late.weights():
        for a, b in zip(whole.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (Cosine, {"budget_tokens": 0}, "budget_tokens is 0"),
        (Averaged, {"sharpness": 0.0}, "sharpness is 0.0"),
        (ScheduleFree, {"beta1": 1.0}, "betas are"),
    ],
)
def test_what_is_out_of_range_is_refused(
    kind: type[Constant], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        make(kind, **options)
