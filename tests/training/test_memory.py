from __future__ import annotations

import pytest
import torch

from mechbench.training.memory import first_micro_batch, is_out_of_memory, peak_memory_mib


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_real_failure_of_the_allocator_counts() -> None:
    with pytest.raises(RuntimeError) as got:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(got.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_real_failure_of_the_cuda_allocator_counts() -> None:
    with pytest.raises(RuntimeError) as got:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(got.value)


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_first_micro_batch_is_within_one_and_the_batch(device_type: str) -> None:
    assert first_micro_batch(64, 66, 64, 2, device_type) == 64
    assert first_micro_batch(64, 1 << 24, 64, 2, device_type) == 1
    assert first_micro_batch(64, 66, 1 << 20, 1 << 10, device_type) == 1


def test_first_micro_batch_shrinks_as_the_model_and_the_input_grow() -> None:
    assert first_micro_batch(1 << 20, 1024, 64, 2, "cpu") == 128
    assert first_micro_batch(1 << 20, 2048, 64, 2, "cpu") == 64
    assert first_micro_batch(1 << 20, 1024, 128, 2, "cpu") == 64
    assert first_micro_batch(1 << 20, 1024, 64, 4, "cpu") == 64
    assert first_micro_batch(1 << 20, 1024, 64, 2, "cuda") == 1024


def test_peak_of_this_process_is_in_mebibytes_and_holds_what_was_touched() -> None:
    before = peak_memory_mib("cpu")
    assert 50 < before < 100_000
    block = torch.ones(int(before) + 64, 1 << 18)  # so many MiB, and written to
    assert peak_memory_mib("cpu") >= before + 32
    del block


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peak_on_cuda_is_the_allocators() -> None:
    torch.cuda.reset_peak_memory_stats()
    before = peak_memory_mib("cuda")
    block = torch.ones(64, 1 << 18, device="cuda")
    assert peak_memory_mib("cuda:0") >= before + 32
    del block
