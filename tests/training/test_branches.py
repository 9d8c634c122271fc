from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mechbench.errors import ConfigError
from mechbench.training.branches import StableDecay
from mechbench.training.optimiser import set_lr
from mechbench.training.schedules import Constant

STEP = 10  # tokens


class Run:
    """A model in training as a loop does it; validated every five steps of the trunk."""

    def __init__(self, kind: type[Constant] = StableDecay, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.optimizer = kind.optimizer(self.model, 1e-2, 0.1)
        self.schedule = kind(self.model, self.optimizer, 4, **options)
        self.step = self.tokens = 0
        self.factors: list[float] = []
        self.branched: list[bool] = []
        self.steps: list[int] = []

    def go(self, until_tokens: int, accuracy: float = 0.5) -> None:
        schedule = self.schedule
        while self.tokens < until_tokens:
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(self.step))
            self.factors.append(schedule.factor(self.step, self.tokens))
            self.branched.append(schedule.branching)
            self.steps.append(self.step)
            self.model.zero_grad()
            self.model(x).square().mean().backward()
            set_lr(self.optimizer, self.factors[-1])
            self.optimizer.step()
            self.step, self.tokens = self.step + 1, self.tokens + STEP
            schedule.updated(self.step)
            if schedule.due(self.tokens) if schedule.branching else self.step % 5 == 0:
                self.step = schedule.validated(self.step, self.tokens, accuracy)

    def branches(self) -> list[range]:
        """Return the steps of every branch."""
        found: list[range] = []
        for i, (step, branched) in enumerate(zip(self.steps, self.branched, strict=True)):
            if branched and self.branched[i - 1]:
                found[-1] = range(found[-1].start, step + 1)
            elif branched:
                found.append(range(step, step + 1))
        return found

    def state(self) -> list[Tensor]:
        moments = [
            value
            for p in self.model.parameters()
            for _, value in sorted(self.optimizer.state[p].items())
        ]
        return [*self.model.parameters(), *self.model.buffers(), *moments]


SIZES = {"share": 1.0, "growth": 2.0, "stalled_growth": 1.5, "patience": 100, "first_tokens": 100}


def test_trunk_is_the_constant_run_bit_for_bit() -> None:
    run, plain = Run(**SIZES), Run(Constant)
    run.go(1300)
    assert run.schedule.aside_tokens == 100 + 200 + 400
    assert not run.schedule.branching
    plain.go(1300 - 700)
    assert run.step == plain.step == 60
    for a, b in zip(run.state(), plain.state(), strict=True):
        assert torch.equal(a, b)


def test_branches_come_as_the_trunk_grows_and_decay_by_one_minus_the_root() -> None:
    run = Run(**SIZES)
    run.go(1300)
    # At 100, 200 and 400 tokens of the trunk.
    assert run.branches() == [range(10, 20), range(20, 40), range(40, 80)]
    decays = [f for f, b in zip(run.factors, run.branched, strict=True) if b]
    assert decays == pytest.approx([1 - math.sqrt(i / n) for n in (10, 20, 40) for i in range(n)])
    trunk = [f for f, b in zip(run.factors, run.branched, strict=True) if not b]
    assert trunk == [0.25, 0.5, 0.75] + [1.0] * 57


def test_a_stall_brings_a_branch_earlier_and_progress_does_not() -> None:
    stalled, moving = (Run(**(SIZES | {"patience": 1, "growth": 8.0})) for _ in range(2))
    stalled.go(400)
    for i in range(1, 41):
        moving.go(10 * i, accuracy=i / 100)
    assert stalled.branches() == [range(10, 20), range(15, 30)]
    assert moving.branches() == [range(10, 20)]


def test_branch_is_validated_near_its_end_so_that_it_can_be_solved_twice() -> None:
    run = Run(**SIZES)
    run.go(100)
    assert run.schedule.branching
    due = [tokens for tokens in range(100, 201, 10) if run.schedule.due(tokens)]
    assert due[0] == 180
    assert run.schedule.validated(18, 180, 0.1) == 18
    assert [run.schedule.due(t) for t in (180, 190)] == [False, True]
    assert run.schedule.validated(19, 190, 0.1) == 19
    assert [run.schedule.due(t) for t in (190, 200)] == [False, True]
    assert run.schedule.validated(20, 200, 0.1) == 10
    assert not run.schedule.branching


@pytest.mark.parametrize("stop", [90, 100, 150, 300, 900])
def test_state_carries_on_bit_for_bit_in_and_out_of_a_branch(stop: int) -> None:
    whole, first, second = Run(**SIZES), Run(**SIZES), Run(**SIZES)
    whole.go(1300)
    first.go(stop)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.schedule.load_state_dict(copy.deepcopy(first.schedule.state_dict()))
    second.step, second.tokens = first.step, first.tokens
    second.go(1300)
    assert (second.step, second.schedule.aside_tokens) == (whole.step, 700)
    assert first.factors + second.factors == whole.factors
    for a, b in zip(second.state(), whole.state(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("share", 0.0),
        ("growth", 1.0),
        ("stalled_growth", 0.5),
        ("patience", 0),
        ("first_tokens", 0),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}: expected a number above"):
        Run(**{name: value})
