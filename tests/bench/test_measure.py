from __future__ import annotations

import time

import torch

from mechbench.bench.measure import WARM_UP, peak_mib, release, times_ms
from mechbench.training.devices import on


def test_times_are_of_the_work_and_not_of_its_preparation() -> None:
    calls: list[str] = []

    def work() -> None:
        calls.append("work")
        time.sleep(0.004)

    def prepare() -> None:
        calls.append("prepare")
        time.sleep(0.02)

    samples = times_ms(work, 3, "cpu", prepare)
    assert len(samples) == 3
    assert 4 <= min(samples) < 20
    assert calls == ["prepare", "work"] * (WARM_UP["cpu"] + 3)


def test_every_repeat_gives_a_time(device: str) -> None:
    a = torch.ones(64, 64, device=device)
    with on(device):
        assert all(ms > 0 for ms in times_ms(lambda: a @ a, 5, device))


def test_peak_memory_is_of_the_work_on_cuda_and_unknown_on_a_cpu(device: str) -> None:
    peak = peak_mib(lambda: torch.empty(8, 2**20, dtype=torch.uint8, device=device), device)
    release(device)
    if device == "cpu":
        assert peak is None
    else:
        assert peak is not None
        assert peak >= 8
