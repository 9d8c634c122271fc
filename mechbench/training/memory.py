"""Recognising out-of-memory errors, and how many sequences to try at once."""

from __future__ import annotations

import sys

import torch

# Tokens of one forward and backward at d_model 64 and 2 layers: about 8 GB on CUDA.
_TOKENS = {"cuda": 1 << 20, "cpu": 1 << 17}


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` is an allocation failure, on CUDA or on a CPU."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "DefaultCPUAllocator" in text
    )


def first_micro_batch(
    batch_size: int, input_seqlen: int, d_model: int, n_layers: int, device_type: str
) -> int:
    """Return the sequences to put through the model at once, before any out-of-memory error."""
    tokens = _TOKENS[device_type] * 128 // max(1, d_model * n_layers)
    return max(1, min(batch_size, tokens // input_seqlen))


def peak_memory_mib(device: str) -> float:
    """Return the peak since start: the allocator's on CUDA, the process's on a CPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
