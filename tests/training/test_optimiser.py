from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mechbench.operators.base import set_optim
from mechbench.training.optimiser import lr_factor, make_optimizer, parameter_groups, set_lr


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.filter = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        set_optim(self.filter, lr=1e-4, weight_decay=0.0)


def test_decay_is_on_matrices_only_and_parameters_may_ask_for_their_own() -> None:
    model = Model()
    optimizer = make_optimizer(model, lr=4e-3, weight_decay=0.1)
    found = {
        id(p): (group["lr"], group["peak_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    expected = {
        "embed.weight": (4e-3, 4e-3, 0.0),
        "linear.weight": (4e-3, 4e-3, 0.1),
        "linear.bias": (4e-3, 4e-3, 0.0),
        "norm.weight": (4e-3, 4e-3, 0.0),
        "norm.bias": (4e-3, 4e-3, 0.0),
        "filter.weight": (1e-4, 1e-4, 0.0),
        "filter.bias": (1e-4, 1e-4, 0.0),
    }
    assert {n: found[id(p)] for n, p in model.named_parameters() if p.requires_grad} == expected
    assert len(found) == len(expected)


def test_own_decay_alone_keeps_the_learning_rate_of_the_run() -> None:
    layer = nn.Linear(2, 2)
    set_optim(layer, weight_decay=0.0)
    (group,) = make_optimizer(layer, lr=2e-3, weight_decay=0.1).param_groups
    assert (group["lr"], group["weight_decay"]) == (2e-3, 0.0)


def test_set_lr_scales_every_group_from_its_peak() -> None:
    optimizer = make_optimizer(Model(), lr=4e-3, weight_decay=0.1)
    for factor in (0.5, 0.25):
        set_lr(optimizer, factor)
        assert {group["lr"] for group in optimizer.param_groups} == {4e-3 * factor, 1e-4 * factor}


def test_steps_are_those_of_adamw() -> None:
    models = [Model(), Model()]
    models[1].load_state_dict(models[0].state_dict())
    own = make_optimizer(models[0], lr=4e-3, weight_decay=0.1)
    groups = parameter_groups(models[1], lr=4e-3, weight_decay=0.1)
    theirs = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    for step in range(4):
        if step == 2:  # as a run that is carried on
            kept = own.state_dict()
            own = make_optimizer(models[0], lr=1.0, weight_decay=0.5)
            own.load_state_dict(kept)
        for model, optimizer in zip(models, (own, theirs), strict=True):
            optimizer.zero_grad()
            x = model.filter(model.norm(model.linear(model.embed(torch.arange(5)))))
            x.square().sum().backward()
            optimizer.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_factor_warms_up_linearly_then_follows_a_cosine_over_the_budget() -> None:
    assert [lr_factor(step, 0.0, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert lr_factor(100, 0.5, 4) == pytest.approx(0.5)
    assert lr_factor(100, 0.25, 4) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))
    assert lr_factor(100, 1.0, 4) == pytest.approx(0.0)
    assert lr_factor(100, 1.3, 4) == pytest.approx(0.0)  # the last step may overshoot
    assert lr_factor(0, 0.0, 0) == 1.0


def test_a_step_moves_parameters(device: str) -> None:
    model = nn.Linear(2, 2).to(device)
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.0)
    before = model.weight.detach().clone()
    model(torch.ones(1, 2, device=device)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(before - model.weight, torch.full_like(before, 1e-2))
