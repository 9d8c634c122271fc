from __future__ import annotations

import dataclasses

import pytest

from mechbench.record.config import Config
from mechbench.sweep import sharing
from mechbench.sweep.sharing import cells_a_gpu


def cells(n: int, device: str = "cuda", **settings: int) -> list[Config]:
    small = Config("hyena", "recall", device_type=device, budget_tokens=3_000_000)
    return [dataclasses.replace(small, seed=i, **settings) for i in range(n)]


@pytest.fixture(autouse=True)
def sixteen_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "processors", lambda: 16)


def test_small_cells_share_and_large_ones_do_not() -> None:
    assert cells_a_gpu(cells(64)) == 4
    for large in ({"budget_tokens": 10_000_001}, {"d_model": 768}, {"seqlen": 2048}):
        assert cells_a_gpu(cells(64, **large)) == 1
        assert cells_a_gpu(cells(64, **large) + cells(65)) == 4
        assert cells_a_gpu(cells(64, **large) + cells(63)) == 1
    assert cells_a_gpu(cells(64, "cpu")) == 1
    assert cells_a_gpu([]) == 1


def test_no_worker_starts_for_a_few_cells() -> None:
    assert [cells_a_gpu(cells(n)) for n in (1, 7, 8, 12, 16)] == [1, 1, 2, 3, 4]
    assert [cells_a_gpu(cells(64), gpus) for gpus in (4, 8)] == [3, 1]


def test_a_processor_is_left_to_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, expected in ((1, 1), (2, 1), (3, 2), (64, 4)):
        monkeypatch.setattr(sharing, "processors", lambda n=n: n)
        assert cells_a_gpu(cells(64)) == expected
