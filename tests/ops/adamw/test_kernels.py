from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mechbench.ops.adamw import FlatAdamW, flat_adamw_takes, kernels
from ops.conftest import relative_error

BETAS = (0.9, 0.98)


def make(device: str, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    torch.manual_seed(0)
    shapes = [(3, 5), (), (kernels.BLOCK + 1,), (40, 60), (7,)]
    return [nn.Parameter(torch.randn(s).to(device, dtype)) for s in shapes]


def groups(parameters: list[nn.Parameter]) -> list[dict[str, object]]:
    return [
        {"params": parameters[:3], "lr": 1e-2, "peak_lr": 1e-2, "weight_decay": 0.1},
        {"params": parameters[3:], "lr": 1e-3, "peak_lr": 1e-3, "weight_decay": 0.0},
    ]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator) for p in make("cpu")]


def reference(steps: int, factor: float, max_norm: float | None) -> list[nn.Parameter]:
    exact = make("cpu", torch.float64)
    optimizer = torch.optim.AdamW(groups(exact), betas=BETAS)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    for step in range(steps):
        for p, g in zip(exact, gradients(step), strict=True):
            p.grad = g.double()
        exact[4].grad = None if step % 2 else exact[4].grad
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(exact, max_norm)
        optimizer.step()
    return exact


def run(optimizer: FlatAdamW, at: list[nn.Parameter], steps: range, max_norm: float | None) -> None:
    for step in steps:
        for p, g in zip(at, gradients(step), strict=True):
            p.grad = g.to(p.device)
        at[4].grad = None if step % 2 else at[4].grad
        if max_norm is not None:
            optimizer.clip(max_norm)
        optimizer.step()


@pytest.mark.parametrize("max_norm", [None, 1.0, 1e9])
def test_it_is_adamw_on_clipped_gradients(kernel_device: str, max_norm: float | None) -> None:
    parameters = make(kernel_device)
    assert flat_adamw_takes(parameters)
    optimizer = FlatAdamW(groups(parameters), BETAS)
    optimizer.set_rates(0.5)
    run(optimizer, parameters, range(5), max_norm)
    for p, exact in zip(parameters, reference(5, 0.5, max_norm), strict=True):
        assert relative_error(p, exact) < 1e-6
    assert [int(optimizer.state[p]["step"]) for p in parameters] == [5, 5, 5, 5, 3]


def test_the_norm_is_that_of_all_gradients(kernel_device: str) -> None:
    parameters = make(kernel_device)
    for p, g in zip(parameters, gradients(0), strict=True):
        p.grad = g.to(p.device)
    parameters[1].grad = None
    expected = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()
    norm = FlatAdamW(groups(parameters), BETAS).clip(1.0)
    torch.testing.assert_close(norm, expected)


def test_state_is_that_of_adamw_and_goes_on_where_it_stopped(kernel_device: str) -> None:
    parameters = make(kernel_device)
    optimizer = FlatAdamW(groups(parameters), BETAS)
    optimizer.set_rates(0.5)
    run(optimizer, parameters, range(2), 1.0)
    stored = copy.deepcopy(optimizer.state_dict())
    plain = torch.optim.AdamW(groups(make(kernel_device)), betas=BETAS)
    plain.load_state_dict(copy.deepcopy(stored))  # has all that it needs
    assert set(plain.state_dict()["state"][0]) == set(stored["state"][0])
    other = FlatAdamW(groups(parameters), BETAS)
    other.set_rates(0.5)
    other.load_state_dict(stored)
    run(other, parameters, range(2, 5), 1.0)
    for p, exact in zip(parameters, reference(5, 0.5, 1.0), strict=True):
        assert relative_error(p, exact) < 1e-6


def test_what_is_not_finite_spreads_as_it_does_by_clipping(kernel_device: str) -> None:
    parameters = make(kernel_device)
    optimizer = FlatAdamW(groups(parameters), BETAS)
    for p, g in zip(parameters, gradients(0), strict=True):
        p.grad = g.to(p.device)
    parameters[1].grad = torch.full((), float("nan"), device=parameters[1].device)
    assert optimizer.clip(1.0).isnan()
    optimizer.step()
    assert all(p.isnan().all() for p in parameters)


def test_parameters_that_moved_are_found(kernel_device: str) -> None:
    parameters = make(kernel_device)
    optimizer = FlatAdamW(groups(parameters), BETAS)
    optimizer.set_rates(0.5)
    run(optimizer, parameters, range(2), 1.0)
    for p in parameters:
        p.data = p.data.clone()
    run(optimizer, parameters, range(2, 5), 1.0)
    for p, exact in zip(parameters, reference(5, 0.5, 1.0), strict=True):
        assert relative_error(p, exact) < 1e-6
