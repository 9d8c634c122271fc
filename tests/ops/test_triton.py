from __future__ import annotations

import sys
import types

import pytest
import torch

from mechbench.ops import triton
from mechbench.ops.triton import (
    has_triton,
    roomy,
    state_fits,
    triton_version,
    unavailable,
    whole_vectors,
    without_room,
)


def test_without_triton_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechbench.ops.triton.has_triton", lambda: False)
    assert unavailable(torch.zeros(2)) == "Triton is not installed"


def test_version_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("triton")
    made.__version__ = "3.10.1+git1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", made)
    triton_version.cache_clear()
    try:
        assert triton_version() == (3, 10) >= (3, 4)
    finally:
        triton_version.cache_clear()


def test_device_and_dtype_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechbench.ops.triton.has_triton", lambda: True)
    monkeypatch.setattr("mechbench.ops.triton.interpreted", lambda: False)
    assert unavailable(torch.zeros(2)) == "the input is on cpu, expected cuda"
    monkeypatch.setattr("mechbench.ops.triton.interpreted", lambda: True)
    monkeypatch.setattr("mechbench.ops.triton.triton_version", lambda: (3, 2))
    reason = "Triton 3.2 is installed, expected at least 3.3"
    assert unavailable(torch.zeros(2)) == reason
    monkeypatch.setattr("mechbench.ops.triton.triton_version", lambda: (3, 3))
    assert unavailable(torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)) is None
    reason = "the input is torch.float64, expected float32, bfloat16 or float16"
    assert unavailable(torch.zeros(2), torch.zeros(2, dtype=torch.float64)) == reason


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_kernels_can_run() -> None:
    assert has_triton()
    assert unavailable(torch.zeros(2, device="cuda")) is None


@pytest.mark.parametrize(("major", "widest"), [(8, 64), (9, 128), (10, 128), (12, 64)])
def test_states_are_as_wide_as_shared_memory_allows(
    monkeypatch: pytest.MonkeyPatch, major: int, widest: int
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    assert roomy(torch.device("cuda", 0)) == (widest == 128)
    x = torch.empty(1)
    monkeypatch.setattr(triton, "roomy", lambda device: widest == 128)
    assert state_fits(x, widest, 16)
    assert state_fits(x, 16, widest)
    assert not state_fits(x, widest + 1, 16)
    assert not state_fits(x, 16, widest + 1)
    assert without_room(x, 16, widest) is None
    told = f"a state of 16 x {widest + 1} numbers: the kernels take at most {widest} a side"
    assert without_room(x, 16, widest + 1) == told


@pytest.mark.parametrize(("n", "expected"), [(1, 16), (16, 16), (17, 32), (131074, 131088)])
def test_rows_of_whole_vectors(n: int, expected: int) -> None:
    assert whole_vectors(n) == expected
