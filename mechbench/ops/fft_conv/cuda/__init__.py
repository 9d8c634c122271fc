"""CUDA C++ sources of the long convolution, and how they are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from mechbench.ops.kernels.nvrtc import Module, module

COMPLEX_BYTES = 8  # a complex number
_COMMON = ("fft.cuh", "real.cuh")
_REALS = {torch.float32: "float", torch.bfloat16: "Bfloat16", torch.float16: "Half"}


def reals(dtype: torch.dtype) -> str:
    """Return the name that the sources give to a type of real numbers."""
    return _REALS[dtype]


@cache
def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def compiled(name: str, device: torch.device, **defined: object) -> Module:
    """Return the kernels of the file `name` on `device`, with what is to be defined before it."""
    lines = "".join(f"#define {key} {value}\n" for key, value in defined.items())
    index = torch.cuda.current_device() if device.index is None else device.index
    return module(lines + "".join(map(_text, (*_COMMON, name))), index)


def chunks(v: Tensor, n: int, most_bytes: int) -> Iterator[slice]:
    """Return slices of the channels of v (B, D, L) whose spectra of length n take `most_bytes`."""
    B, D, _ = v.shape
    size = max(1, most_bytes // (COMPLEX_BYTES * B * n))
    return (slice(start, min(D, start + size)) for start in range(0, D, size))
