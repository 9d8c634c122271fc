from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mechbench.errors import ConfigError
from mechbench.operators.base import set_optim
from mechbench.training.optimiser import parameter_groups, set_lr
from mechbench.training.schedule_free import ScheduleFreeAdamW, swapped
from mechbench.training.step import WARM_UP, Stepper

LR, DECAY, EPS = 3e-2, 0.1, 1e-8


class Model(nn.Module):
    """Matrices, vectors, a rate of its own, and a parameter that is never used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)
        self.unused = nn.Parameter(torch.ones(4, 2))
        set_optim(self.second, lr=LR / 10, weight_decay=0.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.tanh(self.first(x)))
        return y


def make(model: nn.Module, betas: tuple[float, float] = (0.9, 0.98)) -> ScheduleFreeAdamW:
    return ScheduleFreeAdamW(parameter_groups(model, LR, DECAY), betas, EPS)


def loss_of(model: nn.Module, step: int, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
    like = next(model.parameters())
    return (model(x.to(like)) - y.to(like)).square().mean()


def go(model: nn.Module, optimizer: ScheduleFreeAdamW, steps: range) -> None:
    for step in steps:
        model.zero_grad()
        loss_of(model, step).backward()  # type: ignore[no-untyped-call]
        set_lr(optimizer, factor(step))
        optimizer.step()


def same(some: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def factor(step: int) -> float:
    return min(1.0, (step + 1) / 5) * (0.5 if step > 12 else 1.0)


@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.5, 0.999), (0.0, 0.9)])
def test_steps_are_those_of_the_equations(betas: tuple[float, float]) -> None:
    """The sequences of every parameter by themselves, in float64."""
    model = Model().double()
    slow, optimizer = copy.deepcopy(model), make(model, betas)
    own = {"second.weight": (LR / 10, 0.0), "second.bias": (LR / 10, 0.0)}
    own |= {"first.weight": (LR, DECAY), "first.bias": (LR, 0.0)}
    used = {name: p for name, p in slow.named_parameters() if name != "unused"}
    z = {name: p.detach().clone() for name, p in used.items()}
    x = {name: p.detach().clone() for name, p in used.items()}
    v = {name: torch.zeros_like(p) for name, p in used.items()}
    beta1, beta2 = betas
    for t in range(1, 21):
        slow.zero_grad()
        loss_of(slow, t - 1).backward()  # type: ignore[no-untyped-call]
        for name, y in used.items():
            assert y.grad is not None
            rate, decay = own[name]
            v[name] = beta2 * v[name] + (1 - beta2) * y.grad**2
            seen = v[name] / (1 - beta2**t)
            gamma = rate * factor(t - 1)
            z[name] = z[name] - gamma * y.grad / (seen.sqrt() + EPS) - gamma * decay * y.detach()
            c = gamma**2 / sum((rate * factor(i)) ** 2 for i in range(t))
            x[name] = (1 - c) * x[name] + c * z[name]
            y.data = (1 - beta1) * z[name] + beta1 * x[name]
    go(model, optimizer, range(20))
    for name, p in model.named_parameters():
        wanted = used[name] if name in used else torch.ones(4, 2).double()
        torch.testing.assert_close(p, wanted, rtol=1e-12, atol=1e-13, msg=name)
    names = {id(p): name for name, p in model.named_parameters()}
    pairs = zip(optimizer.parameters(), optimizer.averages(), strict=True)
    averages = {names[id(p)]: average for p, average in pairs}
    for name in used:
        torch.testing.assert_close(averages[name], x[name], rtol=1e-12, atol=1e-13, msg=name)


def test_average_finds_the_minimum_of_a_noisy_quadratic_that_its_steps_circle() -> None:
    """At a constant rate; the iterate itself stays away by about the rate."""
    target = torch.linspace(-1, 1, 50)
    p = nn.Parameter(torch.zeros(50))
    optimizer = ScheduleFreeAdamW(
        [{"params": [p], "lr": LR, "peak_lr": LR, "weight_decay": 0.0}], (0.9, 0.98)
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        p.grad = p.detach() - target + torch.randn(50, generator=generator)
        optimizer.step()
    averaged = (optimizer.averages()[0] - target).square().mean().sqrt()
    last = (optimizer.state_dict()["z"] - target).square().mean().sqrt()
    assert averaged < 0.05
    assert averaged < last / 2


def test_state_carries_on_bit_for_bit() -> None:
    whole, first, second = Model(), Model(), Model()
    optimizer = make(whole)
    go(whole, optimizer, range(17))
    half = make(first)
    go(first, half, range(9))
    other = make(second)
    go(second, other, range(3))  # is forgotten
    other.load_state_dict(copy.deepcopy(half.state_dict()))
    assert same(second.parameters(), first.parameters())
    go(second, other, range(9, 17))
    assert same(second.parameters(), whole.parameters())
    assert same(other.averages(), optimizer.averages())


def test_a_rate_of_zero_moves_nothing() -> None:
    model = Model()
    before, optimizer = copy.deepcopy(model), make(model)
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    set_lr(optimizer, 0.0)
    optimizer.step()
    assert same(model.parameters(), before.parameters())


def test_a_parameter_may_lose_and_find_its_gradient() -> None:
    model = Model()
    optimizer = make(model)
    go(model, optimizer, range(2))
    model.zero_grad()
    loss_of(model, 2).backward()  # type: ignore[no-untyped-call]
    before = model.first.weight.detach().clone()
    model.first.weight.grad = None
    optimizer.step()
    after = model.first.weight.detach().clone()
    # z rests; x and y still come closer to it.
    torch.testing.assert_close(after, before, rtol=0, atol=LR)
    go(model, optimizer, range(3, 5))
    assert (model.first.weight - after).abs().max() > 0


def test_swapped_weights_come_back_bit_for_bit_also_after_an_error() -> None:
    model = Model()
    parameters: list[Tensor] = list(model.parameters())
    before = copy.deepcopy(model)

    def fail() -> None:
        with swapped(parameters, [torch.zeros_like(p) for p in parameters]):
            assert not any(p.any() for p in model.parameters())
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert same(model.parameters(), before.parameters())


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda groups: ScheduleFreeAdamW(groups, (1.0, 0.9)), "betas are"),
        (lambda groups: ScheduleFreeAdamW(groups, eps=0.0), "eps is 0.0"),
        (lambda groups: groups[0]["params"].append(torch.ones(1).double()), None),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[Any], object], text: str | None) -> None:
    groups = parameter_groups(Model(), LR, DECAY)
    if text is None:
        build(groups)
        with pytest.raises(ConfigError, match="one dtype on one device"):
            ScheduleFreeAdamW(groups)
        return
    with pytest.raises(ConfigError, match=text):
        build(groups)


def test_state_of_another_model_is_refused() -> None:
    optimizer = make(Model())
    with pytest.raises(ConfigError, match="other parameters"):
        optimizer.load_state_dict(make(nn.Linear(2, 2)).state_dict())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_captured_steps_are_the_eager_ones() -> None:
    found = []
    for capture in (False, True):
        model = Model().cuda()
        optimizer, told = make(model), list[str]()

        def gradients(inputs: Tensor, targets: Tensor, model: nn.Module = model) -> Any:
            model.zero_grad(set_to_none=True)
            loss = (model(inputs) - targets).square().mean()
            loss.backward()
            return loss.detach(), torch.zeros(2, dtype=torch.int64, device="cuda")

        stepper, replays = Stepper(model, optimizer, gradients, 1.0, capture, told.append), 0
        for step in range(WARM_UP + 9):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(8, 3, generator=generator).cuda()
            y = torch.randn(8, 2, generator=generator).cuda()
            if stepper.replay(x, y, factor(step)):
                replays += 1
            else:
                stepper.gradients(x, y)
                stepper.update(factor(step))
        assert (replays, told) == (9 if capture else 0, [])
        found.append([*(p.detach() for p in model.parameters()), *optimizer.averages()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
