"""CUDA C++ sources of the long convolution, and how they are compiled."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import torch

from mechbench.ops.kernels.nvrtc import Module, module

_COMMON = ("fft.cuh", "real.cuh")
_REALS = {torch.float32: "float", torch.bfloat16: "Bfloat16", torch.float16: "Half"}


def reals(dtype: torch.dtype) -> str:
    """Return the name that the sources give to a type of real numbers."""
    return _REALS[dtype]


@cache
def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def compiled(*names: str, device: torch.device, **defined: object) -> Module:
    """Return the kernels of the files `names` on `device`, with what is to be defined before."""
    lines = "".join(f"#define {key} {value}\n" for key, value in defined.items())
    index = torch.cuda.current_device() if device.index is None else device.index
    return module(lines + "".join(map(_text, (*_COMMON, *names))), index)
