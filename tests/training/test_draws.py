from __future__ import annotations

import random

import numpy as np
import torch

from mechbench.training.draws import callers_generators, seed_step


def drawn(seed: int, step: int, device: str, rank: int = 0) -> list[float]:
    seed_step(seed, step, device, rank)
    return [
        torch.rand(()).item(),
        torch.rand((), device=device).item(),
        random.random(),
        float(np.random.rand()),  # noqa: NPY002
    ]


def test_a_step_draws_the_same_wherever_the_run_starts(device: str) -> None:
    first = drawn(3, 7, device)
    drawn(3, 8, device)
    assert drawn(3, 7, device) == first


def test_seeds_steps_and_processes_draw_apart(device: str) -> None:
    draws = [drawn(*given) for given in ((0, 0, device), (1, 0, device), (0, 1, device))]
    draws.append(drawn(0, 0, device, 1))
    for column in zip(*draws, strict=True):
        assert len(set(column)) == 4


def test_the_caller_has_its_generators_back(device: str) -> None:
    drawn(5, 0, device)
    expected = [torch.rand(()).item(), torch.rand((), device=device).item(), random.random()]
    drawn(5, 0, device)
    with callers_generators(device):
        drawn(6, 0, device)
    assert [
        torch.rand(()).item(),
        torch.rand((), device=device).item(),
        random.random(),
    ] == expected
