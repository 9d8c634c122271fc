"""Whether Triton kernels can run; kernels live in files that are imported only where they run."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

VECTOR = 16  # numbers of half types in 32 bytes, which are read at once
OLDEST = (3, 3)  # comes with PyTorch 2.7; 3.2 fails in the middle of compiling


@cache
def has_triton() -> bool:
    """Return whether Triton is installed; it comes with PyTorch's CUDA builds on Linux."""
    return importlib.util.find_spec("triton") is not None


@cache
def triton_version() -> tuple[int, int]:
    """Return the version of Triton, where it is installed: 3.2 came with PyTorch 2.6, and so on."""
    import triton

    major, minor, *_ = triton.__version__.split(".")
    return int(major), int(minor)


@cache
def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter, on any device: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def unavailable(*tensors: Tensor) -> str | None:
    """Say why the kernels cannot take these tensors; None if they can."""
    if not has_triton():
        return "Triton is not installed"
    for x in tensors:
        if not (x.is_cuda or interpreted()):
            return f"the input is on {x.device.type}, expected cuda"
        if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"the input is {x.dtype}, expected float32, bfloat16 or float16"
    if triton_version() < OLDEST:
        return "Triton {}.{} is installed, expected at least {}.{}".format(
            *triton_version(), *OLDEST
        )
    return None


def beside(x: Tensor) -> Tensor:
    """Return x with what its last axis counts side by side in memory, as kernels read it."""
    return x if x.stride(-1) == 1 else x.contiguous()


def whole_vectors(n: int) -> int:
    """Return n or the next number for which rows that follow one another begin at vectors."""
    return -(-n // VECTOR) * VECTOR


def roomy(device: torch.device) -> bool:
    """Return whether a program may use 200 KB of shared memory: Hopper and its successors can."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in (9, 10)


def state_fits(x: Tensor, K: int, P: int) -> bool:
    """Return whether the kernels can keep a state (K, P) on the device of x."""
    return max(K, P) <= _widest(x.device)


def without_room(x: Tensor, K: int, P: int) -> str | None:
    """Say why the kernels cannot keep a state (K, P) on the device of x; None if they can."""
    if state_fits(x, K, P):
        return None
    return f"a state of {K} x {P} numbers: the kernels take at most {_widest(x.device)} a side"


def _widest(device: torch.device) -> int:
    return 128 if roomy(device) else 64
